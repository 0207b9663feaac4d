"""Train a network from an option file: `python llie/train.py -opt options/train/LOLv1.yml`.

Exit codes: 0: training finished; 2: a user's mistake; 143 and 130: stopped by SIGTERM or Ctrl-C, after saving (resume
with --auto_resume).
"""

from __future__ import annotations

import copy
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: Python put llie/ on the path, where its files would hide other modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from llie.data import build_batch_transform, build_train_loader, build_train_set
from llie.data.loader import TrainLoader
from llie.engine import distributed
from llie.engine.allocator import keep_large_blocks
from llie.engine.checkpoint import write_atomically
from llie.engine.initialisation import standardise
from llie.engine.run_folder import facts, output_root, state_to_resume
from llie.engine.settings import Settings
from llie.engine.side_by_side import side_by_side
from llie.engine.trainer import Trainer
from llie.errors import UserError, run_command
from llie.evaluation import Validation
from llie.history import SeedTable, read_run, write_page
from llie.models.base import Model
from llie.options import dump_options, load_options
from llie.options.command_line import parse_arguments
from llie.registry import MODEL_REGISTRY


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, start as many processes as there are GPUs, and train in each."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = parse_arguments("train", argv)
    options = load_options(arguments.opt, arguments.force_yml, "train", debug=arguments.debug)
    if arguments.print:
        print(dump_options(options))
        return 0
    seeds = seeds_of(options["manual_seed"], arguments.seeds)
    if arguments.jobs != 1:
        return train_side_by_side(options, seeds, arguments)
    return distributed.launch(
        lambda device: train_seeds(options, seeds, device, arguments.auto_resume, arguments.output),
        Path(__file__).resolve(),
        argv,
        num_gpu=options["num_gpu"],
        backend=options["dist_params"]["backend"],
        launcher=arguments.launcher,
    )


def seeds_of(manual_seed: int | list[int], count: int | None) -> list[int]:
    """The seeds of all runs: those of the options, or `count` from theirs on.

    Raises:
        UserError: `count` is below 1, or there is a list besides it.
    """
    if count is None:
        return manual_seed if isinstance(manual_seed, list) else [manual_seed]
    if count < 1:
        raise UserError(f"--seeds: {count} is not a number of runs")
    if isinstance(manual_seed, list):
        raise UserError("give either --seeds or a list of seeds in manual_seed, not both")
    return [manual_seed + number for number in range(count)]


def train_seeds(
    options: Mapping[str, Any], seeds: Sequence[int], device: torch.device, auto_resume: bool, root: str | None
) -> int:
    """Train once for each seed, in a folder `NAME_seedSEED` of its own, then compare the runs in `NAME_seeds`.

    With a single seed, the run has the name of the options, and there is nothing to compare.

    Returns:
        See `train`; a run that is stopped ends all.
    """
    if len(seeds) == 1:
        return train({**options, "manual_seed": seeds[0]}, device, auto_resume, root)
    names = run_names(options, seeds)
    for name, seed in zip(names, seeds, strict=True):
        code = train(copy.deepcopy({**options, "name": name, "manual_seed": seed}), device, auto_resume, root)
        if code:
            return code
    if distributed.is_main():
        compare_seeds(options, names, root)
    return 0


def train_side_by_side(options: Mapping[str, Any], seeds: Sequence[int], arguments: Namespace) -> int:
    """Like `train_seeds`, with several seeds at the same time, each in a process of its own.

    Returns:
        The exit code of the first run that failed or was stopped, else 0.

    Raises:
        UserError: the number of jobs is below 1, or there is a launcher or `--debug`.
    """
    if arguments.jobs < 1:
        raise UserError(f"--jobs: {arguments.jobs} is not a number of runs")
    if distributed.started_by_launcher() or arguments.launcher != "none" or arguments.debug:
        raise UserError("--jobs starts processes by itself; leave out torchrun, srun, --launcher and --debug")
    names = run_names(options, seeds)
    gpus = distributed.visible_gpus(options["num_gpu"])
    same = [str(Path(__file__).resolve()), "-opt", arguments.opt]
    same += ["--auto_resume"] if arguments.auto_resume else []
    same += ["--output", arguments.output] if arguments.output else []
    commands = {
        name: [
            *same,
            "--force_yml",
            *arguments.force_yml,
            f"name={name}",
            f"manual_seed={seed}",
            f"num_gpu={'auto' if gpus else 0}",
        ]
        for name, seed in zip(names, seeds, strict=True)
    }
    codes = side_by_side(commands, arguments.jobs, gpus)
    failed = [code for code in codes.values() if code]
    if failed:
        return failed[0]
    compare_seeds(options, names, arguments.output)
    return 0


def run_names(options: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """The names of the runs over seeds."""
    return [f"{options['name']}_seed{seed}" for seed in seeds]


def compare_seeds(options: Mapping[str, Any], names: Sequence[str], root: str | None) -> None:
    """Write and print the comparison of finished runs."""
    folder = output_root(root or options["path"]["experiments_root"], "experiments")
    table = SeedTable(options["name"], [read_run(folder / name) for name in names])
    place = folder / f"{options['name']}_seeds"
    table.write(place)
    print(f"{table.text()}\nlearning curves of all runs: {write_page(table.runs, place / 'report.html', table)}")


def train(options: Mapping[str, Any], device: torch.device, auto_resume: bool = False, root: str | None = None) -> int:
    """Build all parts and train.

    Args:
        options: resolved options.
        device: the device of this process.
        auto_resume: resume the run of this name if it exists.
        root: folder of all runs; by default `path.experiments_root`, or experiments/ in the repository.

    Returns:
        0, or 128 + the number of the signal that stopped the run.
    """
    keep_large_blocks()
    folder = output_root(root or options["path"]["experiments_root"], "experiments") / options["name"]
    state = state_to_resume(folder, auto_resume, options["path"]["resume_state"])
    seed = options["manual_seed"]
    torch.manual_seed(seed)  # initial weights
    if options["train"]["init"] and options["path"]["pretrain_network_g"]:
        raise UserError("give either train.init or path.pretrain_network_g: one replaces the weights of the other")
    model: Model = MODEL_REGISTRY.get(options["model_type"])(options)
    if options["train"]["checkpoint"]:
        model.recompute_blocks()
    rank, world_size = distributed.rank(), distributed.world_size()
    sections = options["datasets"]
    loader = build_train_loader(build_train_set(sections, seed), sections["train"], seed, rank, world_size)
    if options["train"]["init"] == "data" and not state:
        start_from_data(model, loader, device)
    validate = Validation(model, options, device, show=lambda *picture: trainer.log.picture(*picture))
    settings = Settings.from_options(
        options, len(loader), device=device, facts=facts(options), lower_is_better=validate.lower_is_better
    )
    augment = build_batch_transform(options["train"])
    trainer = Trainer(model, loader, settings, folder, validate if validate.datasets else None, augment)
    if state:
        trainer.resume(state)
    if distributed.is_main():
        write_atomically(folder / "options.yml", dump_options(options).encode("utf-8"))
    signal_number = trainer.run()
    return 128 + signal_number if signal_number else 0


def start_from_data(model: Model, loader: TrainLoader, device: torch.device) -> None:
    """Initialise the generator by the first batch of the first process, see `standardise`.

    Raises:
        UserError: there are no references.
    """
    batches = loader.batches()
    batch = {name: value.to(device) for name, value in next(batches).items() if isinstance(value, torch.Tensor)}
    batches.close()
    if "gt" not in batch:
        raise UserError("train.init: data needs references; remove it, or train with pairs")
    network = model.networks["g"].to(device).train()
    standardise(network, batch["lq"], batch["gt"], model.training_inputs(batch))
    network.load_state_dict(distributed.broadcast({name: value.cpu() for name, value in network.state_dict().items()}))


if __name__ == "__main__":
    sys.exit(run_command(main))
