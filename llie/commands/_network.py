"""The arguments of every verb that uses a trained network, and the network that they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llie.errors import UserError

if TYPE_CHECKING:
    from llie.inference import Enhancer

_HVI_CONTROLS = ("alpha_s", "alpha_i", "alpha_rgb")


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--plugin`."""
    parser.add_argument("--plugin", nargs="+", default=[], metavar="FILE", help="Python files with your own networks")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, `--network`, `--device`, `--set`, the HVI networks' controls, and `--plugin`."""
    parser.add_argument(
        "--model", required=True, metavar="CHECKPOINT",
        help="file, run folder, run name, hf:OWNER/REPO, or a network's name with weights in $LLIE_WEIGHTS",
    )  # fmt: skip
    parser.add_argument("--network", metavar="NAME", help="network of the checkpoint, if it is not recognised")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument(
        "--set", nargs="+", default=[], action="extend", metavar="CONTROL=VALUE",
        help="test-time controls of the network (`llie models` lists them), e.g. alpha_s=1.3, or size=400,608",
    )  # fmt: skip
    for control in _HVI_CONTROLS:
        option = "--" + control.replace("_", "-")
        parser.add_argument(option, type=float, metavar="X", help=f"same as --set {control}=X")
    add_plugin_argument(parser)


def load_enhancer(options: argparse.Namespace) -> Enhancer:
    """The network that the arguments of `add_network_arguments` describe, ready to use."""
    from llie.engine.allocator import keep_large_blocks
    from llie.inference import load
    from llie.registry import load_plugins

    keep_large_blocks()
    load_plugins(options.plugin)
    return load(options.model, options.device, options.network, **_controls(options))


def _controls(options: argparse.Namespace) -> dict[str, Any]:
    controls: dict[str, Any] = {name: getattr(options, name) for name in _HVI_CONTROLS}
    controls = {name: value for name, value in controls.items() if value is not None}
    for setting in options.set:
        name, _, value = setting.partition("=")
        try:
            controls[name] = [int(number) for number in value.split(",")] if "," in value else float(value)
        except ValueError:
            raise UserError(f"cannot read {setting!r}; write a control like alpha_s=1.3 or size=400,608") from None
    return controls
