"""The stream of batches: endless, seeded, sharded, resumable from anywhere, the same for any number of workers."""

import itertools
import multiprocessing
import os
import signal
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llie.data import build_dataset, build_train_loader
from llie.data.loader import Order
from llie.errors import UserError
from llie.registry import load_plugins
from tests.processes import PATIENCE


@pytest.fixture
def dataset(tmp_path, put):
    put(tmp_path, *(f"{side}/{n}.png" for side in ("low", "high") for n in range(1, 8)))
    roots = {"dataroot_lq": str(tmp_path / "low"), "dataroot_gt": str(tmp_path / "high")}
    return build_dataset({"type": "PairedImageDataset", **roots, "gt_size": 16, "use_rot": True}, "train")


def loader(dataset, workers=0, seed=1, batch=3, **shard):
    return build_train_loader(dataset, {"batch_size_per_gpu": batch, "num_worker_per_gpu": workers}, seed, **shard)


def take(stream, count):
    return list(itertools.islice(stream, count))


def same(a, b):
    return a["lq_path"] == b["lq_path"] and torch.equal(a["lq"], b["lq"]) and torch.equal(a["gt"], b["gt"])


def test_a_batch(dataset):
    (batch,) = take(loader(dataset).batches(), 1)
    assert batch["lq"].shape == batch["gt"].shape == (3, 3, 16, 16) and batch["lq"].dtype == torch.float32
    assert len(batch["lq_path"]) == len(set(batch["lq_path"])) == 3
    assert len(loader(dataset)) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [1, 4])
def test_a_stream_that_starts_later_is_the_rest_of_the_whole(dataset, workers, first):
    whole = take(loader(dataset).batches(), first + 4)
    rest = take(loader(dataset, workers).batches(first), 4)
    assert all(same(a, b) for a, b in zip(whole[first:], rest, strict=True))


def test_seeds_differ(dataset):
    one, two = (take(loader(dataset, seed=seed).batches(), 2) for seed in (1, 2))
    assert one[0]["lq_path"] + one[1]["lq_path"] != two[0]["lq_path"] + two[1]["lq_path"]


def test_epochs_are_augmented_and_shuffled_anew():
    order = Order(items=6, batch_size=3, seed=0)
    keys = [key for number in range(8) for key in order.keys(number)]
    assert [epoch for epoch, _ in keys] == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert len({tuple(i for e, i in keys if e == epoch) for epoch in range(4)}) == 4


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 4), st.integers(0, 50))
def test_every_image_once_per_epoch_over_all_processes(items, batch, world, seed):
    if items < batch * world:
        with pytest.raises(UserError, match="cannot be filled"):
            Order(items, batch, seed, 0, world)
        return
    orders = [Order(items, batch, seed, rank, world) for rank in range(world)]
    numbers = 2 * items // (batch * world) + 2
    keys = [key for number in range(numbers) for order in orders for key in order.keys(number)]
    for epoch in (0, 1):
        assert sorted(index for e, index in keys if e == epoch) == list(range(items))


def test_processes_together_see_what_one_with_the_large_batch_sees(dataset):
    whole = take(loader(dataset, batch=6).batches(), 3)
    parts = [take(loader(dataset, batch=3, rank=rank, world_size=2).batches(), 3) for rank in (0, 1)]
    for large, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(large["lq"], torch.cat([first["lq"], second["lq"]]))


def test_a_batch_that_cannot_be_filled(dataset):
    with pytest.raises(UserError, match="a batch of 8 cannot be filled from 7 images; set batch_size_per_gpu to 7"):
        loader(dataset, batch=8)
    with pytest.raises(UserError, match=r"batch of 4 x 2 processes .* batch_size_per_gpu to 3 or less"):
        loader(dataset, batch=4, world_size=2)
    with pytest.raises(UserError, match="use fewer GPUs"):
        loader(dataset, batch=1, world_size=8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named_in_one_line(dataset, workers):
    bad = dataset.pairs[3].lq
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(UserError) as caught:
        take(loader(dataset, workers).batches(), 3)
    assert str(caught.value).startswith(str(bad)) and "\n" not in str(caught.value)


def test_images_of_different_sizes_cannot_be_stacked(tmp_path, put, picture):
    from llie.data import write_image

    put(tmp_path, "low/1.png", "high/1.png")
    for side in ("low", "high"):
        write_image(tmp_path / side / "2.png", picture(2, 30, 30))
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(tmp_path)}, "train")
    with pytest.raises(UserError, match=r"differ in size: .*set gt_size, or batch_size_per_gpu to 1"):
        take(loader(dataset, batch=2).batches(), 1)


def test_a_users_data_set_needs_two_methods():
    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, key):
            epoch, index = key
            return {"lq": torch.full((3, 2, 2), float(index)), "lq_path": str(epoch)}

    batches = take(loader(Own(), batch=2).batches(), 2)
    assert sorted(float(value) for batch in batches for value in batch["lq"][:, 0, 0, 0]) == [0, 1, 2, 3]


def test_workers_outlive_ctrl_c(dataset):
    before = set(multiprocessing.active_children())
    whole = take(loader(dataset).batches(), 20)
    stream = loader(dataset, workers=2).batches()
    batches = take(stream, 2)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    batches += take(stream, 18)
    assert all(same(a, b) for a, b in zip(whole, batches, strict=True))
    stream.close()
    for worker in workers:
        worker.join(timeout=PATIENCE)
        assert not worker.is_alive()


def test_a_worker_that_aborts_on_its_way_out_costs_nothing(dataset, monkeypatch):
    """What PyTorch raises from its handler of SIGCHLD when one of its threads in a worker outlives Python there."""
    kind = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    shut_down = kind._shutdown_workers

    def aborted(self):
        monkeypatch.undo()  # only once: the iterator calls it again when it is freed
        shut_down(self)
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Aborted.")

    monkeypatch.setattr(kind, "_shutdown_workers", aborted)
    stream = loader(dataset, workers=1).batches()
    assert same(next(stream), take(loader(dataset).batches(), 1)[0])
    stream.close()


def test_a_failure_in_a_users_data_set_is_reported():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, key):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        take(loader(Broken(), workers=1, batch=2).batches(), 1)


OWN = """
import torch
from llie.registry import DATASET_REGISTRY

@DATASET_REGISTRY.register(name="{name}")
class Own(torch.utils.data.Dataset):
    def __init__(self, phase="train"):
        self.colour = torch.tensor([0.25, 0.5, 0.75])

    def __len__(self):
        return 4

    def __getitem__(self, key):
        return {{"lq": self.colour[:, None, None].expand(3, 2, 2) + key[1], "lq_path": f"{{key[1]}}.png"}}
"""


@pytest.fixture
def start_method(request):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"], indirect=True)
def test_workers_share_the_cached_images_and_read_none(tmp_path, put, start_method):
    if start_method not in multiprocessing.get_all_start_methods() or sys.platform == "win32":
        pytest.skip(f"needs {start_method}, which Windows lacks")
    put(tmp_path, *(f"{side}/{n}.png" for side in ("low", "high") for n in range(1, 5)))
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(tmp_path), "cache": "ram"}, "train")
    here = take(loader(dataset, batch=2).batches(), 3)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    workers = 2 if start_method == "fork" else 1  # others import PyTorch anew in each, which takes seconds
    there = take(loader(dataset, workers=workers, batch=2).batches(), 3)
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"], indirect=True)
def test_workers_that_are_not_forked_know_the_plugins(tmp_path, start_method):
    if start_method not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a fork server, which Windows lacks")
    file = tmp_path / "own.py"
    file.write_text(OWN.format(name=f"Own_{start_method}"), encoding="utf-8")
    load_plugins([str(file)])
    dataset = build_dataset({"type": f"Own_{start_method}"}, "train")
    here, there = (take(loader(dataset, workers, batch=2).batches(), 2) for workers in (0, 1))
    assert all(a["lq_path"] == b["lq_path"] and torch.equal(a["lq"], b["lq"]) for a, b in zip(here, there, strict=True))
