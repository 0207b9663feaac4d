"""The arguments of verbs that use a trained network, and loading this network."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from llie.errors import UserError

if TYPE_CHECKING:
    from llie.inference import Enhancer

Arguments = argparse.ArgumentParser | argparse._ArgumentGroup

_HVI_CONTROLS = ("alpha_s", "alpha_i", "alpha_rgb")
_CONTROLS = ("denoise", *_HVI_CONTROLS)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and what it needs, `--device`, `--memory`, and controls such as `--strength`."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model", metavar="CHECKPOINT",
        help="file (.onnx and .pt2, too), run folder, run name, hf:OWNER/REPO, or name of a network with weights in "
        "$LLIE_WEIGHTS (default: the network that ships with llie)",
    )  # fmt: skip
    add_network_argument(network)
    add_plugin_argument(network)
    add_device_argument(network)
    network.add_argument(
        "--provider", metavar="NAME", help="what runs an .onnx file: cpu, cuda, coreml ... (default: its own choice)"
    )
    add_memory_argument(network, "image")
    network.add_argument(
        "--fast", action="store_true",
        help="compute in bfloat16 where that is faster on this machine; says how much it gains and loses",
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
    add_settings_argument(
        result, "test-time controls of the network (`llie models` lists them), such as alpha_s=1.3 or size=400,608"
    )


def add_network_argument(parser: Arguments) -> None:
    """Add `--network`, the name of a network whose checkpoint does not say it."""
    parser.add_argument("--network", metavar="NAME", help="name of the network, if the checkpoint is not recognised")


def add_plugin_argument(parser: Arguments) -> None:
    """Add `--plugin`."""
    parser.add_argument(
        "--plugin", nargs="+", default=[], metavar="FILE", help="Python files with your own networks and other classes"
    )


def add_device_argument(parser: Arguments) -> None:
    """Add `--device`, one device."""
    parser.add_argument(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one, otherwise cpu)"
    )


def add_memory_argument(parser: Arguments, unit: str) -> None:
    """Add `--memory`, the limit for one `unit`, such as image."""
    parser.add_argument(
        "--memory", metavar="SIZE",
        help=f"memory limit for one {unit}, such as 4GB (default: half of the free memory)",
    )  # fmt: skip


def add_settings_argument(parser: Arguments, help: str) -> None:
    """Add `--set`; `read_settings` reads what it is given."""
    parser.add_argument("--set", nargs="+", default=[], action="extend", metavar="CONTROL=VALUE", help=help)


def prepare(plugins: list[str]) -> None:
    """Prepare a process that will enhance images of many sizes: how it keeps memory, and the user's own networks."""
    from llie.engine.allocator import expect_many_sizes, keep_large_blocks
    from llie.registry import load_plugins

    keep_large_blocks()
    expect_many_sizes()
    load_plugins(plugins)


def load_enhancer(options: argparse.Namespace) -> Enhancer:
    """Load the network that the arguments of `add_network_arguments` describe."""
    from llie.engine.distributed import local_device
    from llie.inference import load

    prepare(options.plugin)
    return load(
        options.model,
        options.device or local_device(),
        options.network,
        strength=options.strength,
        exposure=options.exposure,
        memory=options.memory,
        fast=options.fast,
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
