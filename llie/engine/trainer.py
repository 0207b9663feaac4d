"""The training loop, for any model, loader and settings; it does not depend on networks, images or metrics."""

from __future__ import annotations

import inspect
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from llie.engine import checkpoint
from llie.engine.contracts import Batch, Loader, Trainable
from llie.engine.distributed import average, barrier, broadcast, is_main, joined, match_strides, rank
from llie.engine.ema import Ema
from llie.engine.log import RunLog, describe
from llie.engine.optimizers import create_optimizer
from llie.engine.randomness import derived_seed, seed_everything
from llie.engine.schedules import create_schedule
from llie.engine.settings import Settings
from llie.engine.signals import StopSignals
from llie.errors import UserError

# Buffers are only broadcast before validation: at each forward, it breaks two forwards before one backward (GANs).
_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


class Trainer:
    """Trains a model; a run resumed from any of its checkpoints gives the same result.

    Args:
        model: networks, and the loss of each phase of a step.
        loader: yields this rank's batches.
        settings: see `Settings`.
        run_folder: folder for checkpoints and logs.
        validate: `(network, iteration) -> {name: value}`; called on all ranks, the result of rank 0 is used.
        augment: `(batch, generator) -> batch`, on the device; all random numbers must come from the (CPU) generator.
    """

    def __init__(
        self,
        model: Trainable,
        loader: Loader,
        settings: Settings,
        run_folder: Path,
        validate: Callable[[nn.Module, int], dict[str, float]] | None = None,
        augment: Callable[[Batch, torch.Generator], Batch] | None = None,
    ):
        self.model, self.loader, self.settings, self.run_folder = model, loader, settings, run_folder
        self.validate, self.augment = validate, augment
        self.iteration = 0
        self.best: dict[str, Any] | None = None
        self.nonfinite_in_a_row = 0

        model.to(settings.device, settings.channels_last)
        self.networks = model.networks
        self.ema = Ema(self.networks["g"], settings.ema_decay) if settings.ema_decay else None
        self.trained_parameters = {
            name: [p for p in self.networks[name].parameters() if p.requires_grad] for name in settings.optimizers
        }
        self.optimizers = {
            name: create_optimizer(self.trained_parameters[name], spec, f"optim_{name}")
            for name, spec in settings.optimizers.items()
        }
        self.schedules = {
            name: create_schedule(
                settings.schedules.get(name, settings.schedules["g"]),
                settings.total_iter,
                max(1, len(loader) // settings.accumulate),
                settings.warmup_iter,
            )
            for name in self.optimizers
        }
        self.base_rates = {name: [group["lr"] for group in o.param_groups] for name, o in self.optimizers.items()}
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=settings.amp == "fp16")
        for name in self.optimizers:
            model.trained[name] = self._wrap(self.networks[name])

    def _wrap(self, network: nn.Module) -> nn.Module:
        """The wrapped network for training; checkpoints and validation use the bare one."""
        wrapped: Any = torch.compile(network) if self.settings.compile else network
        if joined():
            match_strides(network)
            wrapped = DistributedDataParallel(
                wrapped,
                device_ids=[self.settings.device] if self.settings.device.type == "cuda" else None,
                find_unused_parameters=self.settings.find_unused_parameters,
                gradient_as_bucket_view=True,
                **_NO_BUFFER_SYNC,
            )
        return wrapped

    def run(self) -> int:
        """Train to the end.

        Returns:
            0, or the number of the signal that stopped the run, after saving.
        """
        s = self.settings
        self.log = RunLog(self.run_folder, self.iteration, s.total_iter, s.tensorboard)
        if self.iteration >= s.total_iter:
            self.log.line(f"already trained to iteration {self.iteration} of {s.total_iter}, in {self.run_folder}")
            self.log.close()
            return 0
        self.log.line(f"training iterations {self.iteration + 1} to {s.total_iter} on {s.device}, in {self.run_folder}")
        self._clock = (time.monotonic(), self.iteration)
        ended_by = 0
        with StopSignals() as signals, closing(self.loader.batches(self.iteration * s.accumulate)) as batches:
            while self.iteration < s.total_iter and not ended_by:
                self.iteration += 1
                micro_batches = self._next(batches)
                seed_everything(s.seed, rank(), self.iteration)  # after the loader, whose start uses random numbers
                values: dict[str, Tensor] = {}
                stop = 0.0
                for phase in self.model.phases(self.iteration):
                    terms, stop = self._step(phase, micro_batches, float(signals.number > 0))
                    values.update(terms)
                self.log.progress()
                if stop:  # known to all ranks in the same step
                    ended_by = signals.number or signal.SIGTERM
                last = self.iteration == s.total_iter
                if self.iteration % s.print_freq == 0 or last:
                    self._print(values)
                if self.validate and (last or (s.val_freq and self.iteration % s.val_freq == 0)):
                    try:
                        self._validate()
                    except UserError:  # NaN, an unreadable image: keep what was trained so far
                        self._save()
                        raise
                if last or ended_by or self.iteration % s.save_freq == 0:
                    self._save()
        barrier()  # a launcher stops all ranks when one ends, so none may end while rank 0 is writing
        self.log.line(f"stopped by {signal.Signals(ended_by).name}; saved" if ended_by else "end of training")
        self.log.close()
        return int(ended_by)

    def _next(self, batches: Iterator[Batch]) -> list[Batch]:
        """The micro-batches of one step, on the device and augmented."""
        s = self.settings
        generator = torch.Generator().manual_seed(derived_seed(s.seed, rank(), self.iteration, 1))
        micro_batches = [self._to_device(next(batches)) for _ in range(s.accumulate)]
        return [self.augment(batch, generator) for batch in micro_batches] if self.augment else micro_batches

    def _to_device(self, batch: Batch) -> Batch:
        def move(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            layout = torch.channels_last if self.settings.channels_last and value.ndim == 4 else torch.preserve_format
            return value.to(self.settings.device, non_blocking=True, memory_format=layout)

        return {key: move(value) for key, value in batch.items()}

    def _step(self, phase: str, micro_batches: list[Batch], stop: float) -> tuple[dict[str, Tensor], float]:
        """Forward, backward and one optimiser step of one network.

        Returns:
            The values to log, and a value above 0 if any rank should stop.
        """
        s, optimizer = self.settings, self.optimizers[phase]
        for group, base in zip(optimizer.param_groups, self.base_rates[phase], strict=True):
            group["lr"] = self.schedules[phase](base, self.iteration)

        loss = torch.zeros((), device=s.device)
        values: dict[str, Tensor] = {}
        for i, batch in enumerate(micro_batches):
            trained = self.model.trained[phase]
            waits = isinstance(trained, DistributedDataParallel) and i + 1 < len(micro_batches)
            with trained.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with self._autocast():
                    micro_loss, terms = self.model.loss(phase, batch)
                # Divided, so that several small batches give the gradient of one large batch.
                self.scaler.scale(micro_loss / len(micro_batches)).backward()
            loss += micro_loss.detach() / len(micro_batches)
            for name, term in {f"loss_{phase}": micro_loss, **terms}.items():
                values[name] = values.get(name, 0) + term.detach() / len(micro_batches)

        self.scaler.unscale_(optimizer)  # clipping needs the true gradients
        limit = math.inf if s.clip_grad_norm is None else s.clip_grad_norm
        norm = nn.utils.clip_grad_norm_(self.trained_parameters[phase], limit)
        # The only point of a step that waits for the device and for the other ranks, so that all decide the same.
        mean_loss, norm, stop = average(torch.stack([loss, norm.to(loss), loss.new_tensor(stop)])).tolist()
        # fp16 gradients overflow occasionally; the scaler then skips the step and halves its scale.
        overflow_is_normal = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if math.isfinite(mean_loss) and (overflow_is_normal or math.isfinite(norm)):
            self.scaler.step(optimizer)
            self.nonfinite_in_a_row = 0
            if self.ema and phase == "g":
                self.ema.update(self.networks["g"])
        else:
            self._report_nonfinite(phase, micro_batches, loss.item(), mean_loss)
        values[f"grad_norm_{phase}"] = loss.new_tensor(norm)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return values, stop

    def _autocast(self) -> Any:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.settings.amp or "")
        return torch.autocast(self.settings.device.type, dtype) if dtype else nullcontext()

    def _report_nonfinite(self, phase: str, micro_batches: list[Batch], own_loss: float, mean_loss: float) -> None:
        """Save the batch that caused it, and report it; the step is skipped."""
        self.nonfinite_in_a_row += 1
        folder = self.run_folder / "nonfinite"
        if not (math.isfinite(own_loss) and not math.isfinite(mean_loss)):  # else the batch of another rank caused it
            what = "gradient" if math.isfinite(own_loss) else "loss"
            names = [name for batch in micro_batches for name in batch.get("lq_path", [])]
            path = folder / f"iter_{self.iteration}_{phase}_rank_{rank()}.pt"
            if len(list(folder.glob("*.pt"))) < self.settings.max_nonfinite:  # a diverging run must not fill the disk
                content = {"iteration": self.iteration, "batches": micro_batches}
                checkpoint.write_atomically(path, checkpoint.serialise(content))
            self.log.warn(f"iteration {self.iteration}: non-finite {what}, step skipped; batch in {path}: {names[:8]}")
        if self.nonfinite_in_a_row >= self.settings.max_nonfinite:
            raise UserError(
                f"loss or gradient was not finite {self.nonfinite_in_a_row} times in a row (up to iteration "
                f"{self.iteration}); the batches are in {folder}. Try a lower lr, train.clip_grad_norm, "
                "or train.amp: bf16 or null, and resume with --auto_resume"
            )

    def _print(self, values: dict[str, Tensor]) -> None:
        shown = dict(zip(values, average(torch.stack([v.float() for v in values.values()])).tolist(), strict=True))
        shown |= {f"lr_{name}": o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        now, (then, since) = time.monotonic(), self._clock
        rate = (self.iteration - since) / max(now - then, 1e-9)
        self._clock = (now, self.iteration)
        left = time.strftime("%H:%M:%S", time.gmtime((self.settings.total_iter - self.iteration) / rate))
        self.log.scalars("train", self.iteration, shown)
        self.log.line(f"{self.iteration}/{self.settings.total_iter}  {describe(shown)}  {rate:.3g} it/s  {left} left")

    def _validate(self) -> None:
        """Validate the averaged network (or the network itself), and save it if it is the best so far."""
        assert self.validate
        network = self.ema.network if self.ema else self.networks["g"]
        if joined():
            for buffer in network.buffers():  # batch-norm statistics differ between ranks
                torch.distributed.broadcast(buffer, src=0)
        network.eval()
        with torch.no_grad():
            values = broadcast(self.validate(network, self.iteration))
        self.networks["g"].train()
        self._clock = (time.monotonic(), self.iteration)
        self.log.scalars("val", self.iteration, values)
        name = self.settings.best or next(iter(values), None)
        if name is None:
            return
        sign = -1 if self.settings.lower_is_better else 1
        # In a tie the earlier one stays; a NaN never replaces it.
        improved = self.best is None or sign * values[name] > sign * self.best["value"]
        if improved:
            self.best = {"name": name, "value": float(values[name]), "iteration": self.iteration}
            if is_main():
                checkpoint.save_network(self.run_folder, "g", self._network_content("g"), "best")
        self.log.line(f"{self.iteration}  validation  {describe(values)}{'  (best so far)' if improved else ''}")

    def _network_content(self, name: str) -> dict[str, Any]:
        content = {"params": self.networks[name].state_dict(), "iteration": self.iteration, **self.settings.facts}
        return content | ({"params_ema": self.ema.state_dict()} if self.ema and name == "g" else {})

    def _save(self) -> None:
        if not is_main():
            return
        state = {
            "iteration": self.iteration,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "best": self.best,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
            **self.settings.facts,
        }
        contents = {name: self._network_content(name) for name in self.networks}
        checkpoint.save(self.run_folder, state, contents, self.settings.keep_last)

    def resume(self, state: dict[str, Any]) -> None:
        """Resume exactly from this training state; call before `run`.

        Learning rates and other optimiser arguments come from the current settings, not from the state.
        """
        self.iteration = state["iteration"]
        try:
            for name, network in self.networks.items():
                network.load_state_dict(state["networks"][name])
            for name, optimizer in self.optimizers.items():
                present = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
                optimizer.load_state_dict(state["optimizers"][name])
                for group, numbers in zip(optimizer.param_groups, present, strict=True):
                    group.update(numbers)
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the training state of iteration {self.iteration} in {self.run_folder} belongs to another network or "
                f"optimiser; give the changed run another name ({str(error).splitlines()[0]})"
            ) from error
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.load_state_dict(state["ema"] or state["networks"]["g"])
        self.best, self.nonfinite_in_a_row = state["best"], state["nonfinite_in_a_row"]
