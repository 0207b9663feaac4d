import json
import math
import os
import signal

import pytest
import torch
from torch import nn

from llie.engine import checkpoint
from llie.engine.distributed import disconnect
from llie.engine.trainer import Trainer
from llie.errors import UserError
from tests.engine.tiny import TinyLoader, TinyModel, settings, weights


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_trains_logs_and_saves(tmp_path):
    trainer = Trainer(TinyModel(), TinyLoader(), settings(20), tmp_path)
    assert trainer.run() == 0
    logged = [line for line in lines(tmp_path) if line["kind"] == "train"]
    assert [line["iter"] for line in logged] == list(range(2, 21, 2))
    assert logged[-1]["loss_g"] < 0.8 * logged[0]["loss_g"]
    assert logged[0]["lr_g"] == 1e-2
    assert {p.name for p in (tmp_path / "models").iterdir()} == {
        *(f"net_g_{i}.pth" for i in (12, 16, 20)),
        "net_g_latest.pth",
    }
    content = torch.load(tmp_path / "models" / "net_g_latest.pth", weights_only=True)
    assert all(torch.equal(content["params"][key], value) for key, value in weights(trainer).items())
    assert "end of training" in (tmp_path / "train.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "accumulate": 2}], ids=["plain", "ema-accumulate"])
def test_resumes_bit_for_bit(tmp_path, changes):
    """Dropout, batch norm, augmentation, EMA, schedule: all exact after a break at any checkpoint."""
    changes = {"schedules": {"g": {"type": "cosine"}}, "warmup_iter": 3, **changes}

    def augment(batch, generator):
        return batch | {"lq": batch["lq"] + 0.1 * torch.rand(batch["lq"].shape, generator=generator)}

    def validate(network, iteration):
        return {"psnr": float(network(torch.full((1, 3, 8, 8), 0.5)).mean())}

    def start(folder):
        model = TinyModel(dropout=0.3, norm=True)
        return Trainer(model, TinyLoader(), settings(12, val_freq=3, **changes), folder, validate, augment)

    whole = start(tmp_path / "whole")
    whole.run()
    broken = start(tmp_path / "broken")
    broken.settings.total_iter = 8
    broken.run()
    resumed = start(tmp_path / "broken")
    resumed.resume(checkpoint.newest_state(tmp_path / "broken", print))
    assert resumed.iteration == 8
    resumed.run()
    assert all(torch.equal(weights(whole)[key], value) for key, value in weights(resumed).items())
    if whole.ema:
        assert all(torch.equal(whole.ema.state_dict()[k], v) for k, v in resumed.ema.state_dict().items())
    assert resumed.best == whole.best
    told = {json.dumps(line) for line in lines(tmp_path / "whole")}
    assert told <= {json.dumps(line) for line in lines(tmp_path / "broken")}


def test_accumulation_equals_the_large_batch(tmp_path):
    large = Trainer(TinyModel(), TinyLoader(batch=6), settings(5), tmp_path / "large")
    small = Trainer(TinyModel(), TinyLoader(batch=2), settings(5, accumulate=3), tmp_path / "small")
    large.run(), small.run()
    for key, value in weights(large).items():
        torch.testing.assert_close(weights(small)[key], value, rtol=1e-5, atol=1e-7)


def test_clipping_limits_the_true_gradient(tmp_path):
    """With plain SGD the step is lr * gradient, so its length is lr * the limit."""
    options = {"optimizers": {"g": {"type": "SGD", "lr": 1.0}}, "clip_grad_norm": 1e-3}
    trainer = Trainer(TinyModel(), TinyLoader(), settings(1, **options), tmp_path)
    before = weights(trainer)
    trainer.run()
    moved = math.sqrt(sum(float((weights(trainer)[key] - before[key]).square().sum()) for key in before))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_nonfinite_step_is_skipped_named_and_its_batch_kept(tmp_path):
    trainer = Trainer(TinyModel(), TinyLoader(poison=(1,)), settings(1), tmp_path)
    trainer.run()
    before = weights(trainer)
    again = Trainer(TinyModel(), TinyLoader(poison=(1,)), settings(2), tmp_path)
    again.resume(checkpoint.newest_state(tmp_path, print))
    again.run()
    assert all(torch.equal(before[key], value) for key, value in weights(again).items())
    kept = torch.load(tmp_path / "nonfinite" / "iter_2_g_rank_0.pt", weights_only=True)
    assert kept["batches"][0]["lq_path"] == ["2.png", "3.png"]
    assert "2.png" in (tmp_path / "train.log").read_text(encoding="utf-8")


def test_gives_up_after_too_many_nonfinite_steps_in_a_row(tmp_path):
    poison = (1, 3, 4, 5)
    trainer = Trainer(TinyModel(), TinyLoader(poison=poison), settings(max_nonfinite=3, save_freq=2), tmp_path)
    with pytest.raises(UserError, match=r"3 times in a row.*clip_grad_norm"):
        trainer.run()
    assert trainer.iteration == 6
    assert checkpoint.newest_state(tmp_path, print)["iteration"] == 4


def test_nonfinite_gradient_of_a_finite_loss_is_caught(tmp_path):
    class Root(TinyModel):
        def loss(self, phase, batch):
            loss = (self.trained["g"](batch["lq"]) * 0).abs().sqrt().mean()  # d sqrt(0) is infinite
            return loss, {}

    trainer = Trainer(Root(), TinyLoader(), settings(1), tmp_path)
    before = weights(trainer)
    trainer.run()
    assert all(torch.equal(before[key], value) for key, value in weights(trainer).items())
    assert "non-finite gradient" in (tmp_path / "train.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_weights(tmp_path, amp):
    trainer = Trainer(TinyModel(), TinyLoader(), settings(20, amp=amp), tmp_path)
    trainer.run()
    logged = [line["loss_g"] for line in lines(tmp_path)]
    assert logged[-1] < 0.85 * logged[0]
    assert trainer.networks["g"][0].weight.dtype == torch.float32


def test_fp16_scale_is_resumed(tmp_path):
    trainer = Trainer(TinyModel(), TinyLoader(), settings(2, amp="fp16"), tmp_path)
    trainer.run()
    again = Trainer(TinyModel(), TinyLoader(), settings(4, amp="fp16"), tmp_path)
    again.resume(checkpoint.newest_state(tmp_path, print))
    assert again.scaler.state_dict() == trainer.scaler.state_dict()


def test_best_checkpoint_is_kept_and_ties_go_to_the_earlier(tmp_path):
    scores = {2: 20.0, 4: 25.0, 6: 25.0, 8: 22.0}
    seen = {}

    def validate(network, iteration):
        assert not network.training
        seen[iteration] = {k: v.clone() for k, v in network.state_dict().items()}
        return {"psnr": scores[iteration], "lpips": -scores[iteration]}

    trainer = Trainer(TinyModel(), TinyLoader(), settings(8, val_freq=2), tmp_path, validate)
    trainer.run()
    assert trainer.networks["g"].training
    assert trainer.best == {"name": "psnr", "value": 25.0, "iteration": 4}
    best = torch.load(tmp_path / "models" / "net_g_best.pth", weights_only=True)
    assert best["iteration"] == 4
    assert all(torch.equal(best["params"][key], value) for key, value in seen[4].items())
    assert [line["iter"] for line in lines(tmp_path) if line["kind"] == "val"] == [2, 4, 6, 8]


def test_lower_can_be_better(tmp_path):
    run = settings(4, val_freq=2, best="lpips", lower_is_better=True)
    trainer = Trainer(TinyModel(), TinyLoader(), run, tmp_path, lambda n, i: {"psnr": i, "lpips": float(i)})
    trainer.run()
    assert trainer.best["iteration"] == 2


def test_nan_is_never_best(tmp_path):
    scores = {2: 20.0, 4: float("nan")}
    trainer = Trainer(TinyModel(), TinyLoader(), settings(4, val_freq=2), tmp_path, lambda n, i: {"psnr": scores[i]})
    trainer.run()
    assert trainer.best["iteration"] == 2


def test_nothing_is_lost_when_validation_fails(tmp_path):
    def validate(network, iteration):
        raise UserError("eval/7.png: broken")

    with pytest.raises(UserError, match="broken"):
        Trainer(TinyModel(), TinyLoader(), settings(9, val_freq=3, save_freq=9), tmp_path, validate).run()
    assert checkpoint.newest_state(tmp_path, print)["iteration"] == 3


def test_a_finished_run_exits_at_once(tmp_path, capsys):
    Trainer(TinyModel(), TinyLoader(), settings(2), tmp_path).run()
    again = Trainer(TinyModel(), TinyLoader(), settings(2), tmp_path)
    again.resume(checkpoint.newest_state(tmp_path, print))
    assert again.run() == 0
    assert "already trained to iteration 2 of 2" in capsys.readouterr().out


def test_the_averaged_network_is_validated_and_saved(tmp_path):
    validated = []
    run = settings(4, ema_decay=0.5)
    trainer = Trainer(TinyModel(norm=True), TinyLoader(), run, tmp_path, lambda n, i: validated.append(n) or {})
    trainer.run()
    assert validated == [trainer.ema.network]
    content = torch.load(tmp_path / "models" / "net_g_latest.pth", weights_only=True)
    assert torch.equal(content["params_ema"]["1.running_mean"], content["params"]["1.running_mean"])
    assert not torch.equal(content["params_ema"]["0.weight"], content["params"]["0.weight"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_saves_and_ends(tmp_path, number):
    class Stopping(TinyModel):
        calls = 0

        def loss(self, phase, batch):
            self.calls += 1
            if self.calls == 5:
                os.kill(os.getpid(), number)
            return super().loss(phase, batch)

    before = signal.getsignal(number)
    trainer = Trainer(Stopping(), TinyLoader(), settings(1000, save_freq=1000), tmp_path)
    assert trainer.run() == number
    assert signal.getsignal(number) == before
    assert checkpoint.newest_state(tmp_path, print)["iteration"] == trainer.iteration
    assert trainer.iteration in (5, 6)


def test_current_settings_override_stored_ones(tmp_path):
    Trainer(TinyModel(), TinyLoader(), settings(4), tmp_path).run()
    present = settings(8, optimizers={"g": {"type": "Adam", "lr": 5e-4, "betas": (0.8, 0.9)}})
    again = Trainer(TinyModel(), TinyLoader(), present, tmp_path)
    again.resume(checkpoint.newest_state(tmp_path, print))
    again.run()
    assert lines(tmp_path)[-1]["lr_g"] == 5e-4
    assert again.optimizers["g"].param_groups[0]["betas"] == (0.8, 0.9)
    assert again.optimizers["g"].state_dict()["state"][0]["step"] == 8


def test_resume_asks_the_loader_for_the_next_batch(tmp_path):
    Trainer(TinyModel(), TinyLoader(), settings(4, accumulate=2), tmp_path).run()
    loader = TinyLoader()
    again = Trainer(TinyModel(), loader, settings(5, accumulate=2), tmp_path)
    again.resume(checkpoint.newest_state(tmp_path, print))
    again.run()
    assert loader.asked == [8, 9]


def test_channels_last_and_compile_change_nothing_but_speed(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or nn.Sequential(network))
    plain = Trainer(TinyModel(), TinyLoader(), settings(3), tmp_path / "a")
    other = Trainer(TinyModel(), TinyLoader(), settings(3, channels_last=True, compile=True), tmp_path / "b")
    plain.run(), other.run()
    assert compiled == [other.networks["g"]]
    assert other.networks["g"][0].weight.is_contiguous(memory_format=torch.channels_last)
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(other)[key], value, rtol=1e-4, atol=1e-6)


def test_tensorboard_gets_curves_without_those_taken_back(tmp_path):
    Trainer(TinyModel(), TinyLoader(), settings(4, tensorboard=True), tmp_path).run()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss_g")] == [2, 4]


def test_lines_logged_after_the_checkpoint_are_taken_back(tmp_path):
    Trainer(TinyModel(), TinyLoader(), settings(4), tmp_path).run()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "iter": 6, "loss_g": 1.0}\n{"kind": "tr')  # killed in the middle of a line
    again = Trainer(TinyModel(), TinyLoader(), settings(8), tmp_path)
    again.resume(checkpoint.newest_state(tmp_path, print))
    again.run()
    assert [line["iter"] for line in lines(tmp_path)] == [2, 4, 6, 8]


def test_unknown_optimiser_is_named(tmp_path):
    with pytest.raises(UserError, match="AdamW"):
        Trainer(TinyModel(), TinyLoader(), settings(optimizers={"g": {"type": "AdamWW"}}), tmp_path)
    with pytest.raises(UserError, match="weight_decay"):
        spec = {"type": "AdamW", "weight_decy": 1.0}
        Trainer(TinyModel(), TinyLoader(), settings(optimizers={"g": spec}), tmp_path)


class Ambiguous(nn.Module):
    """Convolutions with dimensions of size 1, used so that their gradients come in another layout's strides."""

    def __init__(self):
        super().__init__()
        self.one, self.deep = nn.Conv2d(6, 8, 1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        left, right = self.one.weight[:, :, 0, 0].chunk(2, dim=1)  # as HVI-SMM does
        x = torch.einsum("oi,bihw->bohw", left + right, x)
        return self.last(self.deep(x.contiguous(memory_format=torch.channels_last)))


@pytest.fixture
def alone_in_a_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.set_warn_always(True)  # by default one test hears what PyTorch says once
    yield
    torch.set_warn_always(False)
    disconnect()


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_have_the_strides_that_ddp_wants(tmp_path, alone_in_a_group, recwarn, channels_last):
    model = TinyModel()
    model.networks["g"] = Ambiguous()
    Trainer(model, TinyLoader(), settings(2, channels_last=channels_last), tmp_path).run()
    assert not [str(warning.message) for warning in recwarn if "strides" in str(warning.message)]
