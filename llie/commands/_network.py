"""The arguments of verbs that use a trained network, and loading this network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llie.errors import UserError

if TYPE_CHECKING:
    from llie.inference import Enhancer

_HVI_CONTROLS = ("alpha_s", "alpha_i", "alpha_rgb")
_CONTROLS = ("denoise", *_HVI_CONTROLS)


def add_plugin_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--plugin`."""
    parser.add_argument(
        "--plugin", nargs="+", default=[], metavar="FILE", help="Python files that define your own networks"
    )


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and what it needs, `--device`, `--memory`, and controls such as `--strength`."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model", metavar="CHECKPOINT",
        help="file (.onnx, too), run folder, run name, hf:OWNER/REPO, or name of a network with weights in "
        "$LLIE_WEIGHTS (default: the network that ships with llie)",
    )  # fmt: skip
    network.add_argument("--network", metavar="NAME", help="name of the network, if the checkpoint is not recognised")
    add_plugin_argument(network)
    network.add_argument(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one, otherwise cpu)"
    )
    network.add_argument(
        "--provider", metavar="NAME", help="what runs an .onnx file: cpu, cuda, coreml ... (default: its own choice)"
    )
    network.add_argument(
        "--memory", metavar="SIZE",
        help="memory limit for one image, such as 4GB (default: half of the free memory)",
    )  # fmt: skip
    result = parser.add_argument_group("result")
    result.add_argument(
        "--strength", type=float, default=1.0, metavar="S",
        help="0 (no effect) to 1 (full effect) (default: %(default)g)",
    )  # fmt: skip
    result.add_argument(
        "--exposure", type=float, default=0.0, metavar="EV",
        help="make the result brighter (1) or darker (-1) (default: %(default)g)",
    )  # fmt: skip
    result.add_argument("--denoise", type=float, metavar="D", help="0 to 1; same as --set denoise=D")
    for control in _HVI_CONTROLS:
        option = "--" + control.replace("_", "-")
        result.add_argument(option, type=float, metavar="X", help=f"same as --set {control}=X")
    result.add_argument(
        "--set", nargs="+", default=[], action="extend", metavar="CONTROL=VALUE",
        help="test-time controls of the network (`llie models` lists them), such as alpha_s=1.3 or size=400,608",
    )  # fmt: skip


def load_enhancer(options: argparse.Namespace) -> Enhancer:
    """Load the network that the arguments of `add_network_arguments` describe."""
    from llie.engine.allocator import expect_many_sizes, keep_large_blocks
    from llie.engine.distributed import local_device
    from llie.inference import load
    from llie.registry import load_plugins

    keep_large_blocks()
    expect_many_sizes()
    load_plugins(options.plugin)
    return load(
        options.model,
        options.device or local_device(),
        options.network,
        strength=options.strength,
        exposure=options.exposure,
        memory=options.memory,
        provider=options.provider,
        **_controls(options),
    )


def _controls(options: argparse.Namespace) -> dict[str, Any]:
    controls: dict[str, Any] = {name: getattr(options, name) for name in _CONTROLS}
    controls = {name: value for name, value in controls.items() if value is not None}
    return controls | read_settings(options.set)


def read_settings(settings: list[str]) -> dict[str, Any]:
    """Controls written as CONTROL=VALUE."""
    controls: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            controls[name] = [int(number) for number in value.split(",")] if "," in value else float(value)
        except ValueError:
            raise UserError(f"cannot read {setting!r}; write a control like alpha_s=1.3 or size=400,608") from None
    return controls
