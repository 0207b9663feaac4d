"""Train a network from an option file: `python llie/train.py -opt options/train/LOLv1.yml`.

Exit codes: 0: training finished; 2: a user's mistake; 143 and 130: stopped by SIGTERM or Ctrl-C, after saving (resume
with --auto_resume).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: Python put llie/ on the path, where its files would hide other modules
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from llie.data import build_batch_transform, build_train_loader, build_train_set
from llie.engine import distributed
from llie.engine.allocator import keep_large_blocks
from llie.engine.checkpoint import write_atomically
from llie.engine.run_folder import facts, output_root, state_to_resume
from llie.engine.settings import Settings
from llie.engine.trainer import Trainer
from llie.errors import run_command
from llie.evaluation import Validation
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
    return distributed.launch(
        lambda device: train(options, device, auto_resume=arguments.auto_resume, root=arguments.output),
        Path(__file__).resolve(),
        argv,
        num_gpu=options["num_gpu"],
        backend=options["dist_params"]["backend"],
        launcher=arguments.launcher,
    )


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
    model: Model = MODEL_REGISTRY.get(options["model_type"])(options)
    rank, world_size = distributed.rank(), distributed.world_size()
    sections = options["datasets"]
    loader = build_train_loader(build_train_set(sections), sections["train"], seed, rank, world_size)
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


if __name__ == "__main__":
    sys.exit(run_command(main))
