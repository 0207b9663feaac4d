"""The arguments of verbs that wait for pictures at an address: `llie serve` and `llie web`."""

from __future__ import annotations

import argparse
import sys

from llie.commands._network import Arguments, add_memory_argument, add_plugin_argument
from llie.commands._numbers import count_of

_LOCAL = ("127.0.0.1", "::1", "localhost")


def add_networks_arguments(parser: argparse.ArgumentParser, unit: str, models: str, devices: str) -> Arguments:
    """Add `--model` and `--device`, which take several, `--memory` and `--plugin`.

    Args:
        parser: of the verb.
        unit: what the networks are given, such as picture.
        models: help of `--model`.
        devices: help of `--device`.

    Returns:
        The group, for further arguments.
    """
    network = parser.add_argument_group("network")
    network.add_argument("--model", nargs="+", default=[], metavar="[NAME=]CHECKPOINT", help=models)
    add_plugin_argument(network)
    network.add_argument("--device", nargs="+", default=[], metavar="DEVICE", help=devices)
    add_memory_argument(network, unit)
    return network


def add_address_arguments(parser: argparse.ArgumentParser, port: int) -> Arguments:
    """Add `--host`, by default this machine alone, and `--port` with its default; returns the group."""
    address = parser.add_argument_group("address")
    address.add_argument("--host", default=_LOCAL[0], help="address to listen on (default: %(default)s, local only)")
    address.add_argument(
        "--port", type=int, default=port, metavar="N", help="port to listen on; 0: any free one (default: %(default)s)"
    )
    return address


def add_upload_limits(parser: argparse.ArgumentParser, unit: str, mebibytes: int) -> Arguments:
    """Add `--max-bytes`, with its default in MiB, and `--max-pixels`; returns the group."""
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-bytes", type=count_of("bytes"), default=mebibytes * 2**20, metavar="N",
        help="largest size of an upload in bytes (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--max-pixels", type=count_of("pixels"), default=50_000_000, metavar="N",
        help=f"largest number of pixels of a {unit} (default: %(default)s)",
    )  # fmt: skip
    return limits


def warn_if_open(host: str, warning: str) -> None:
    """Print the warning if other machines can reach this address."""
    if host not in _LOCAL:
        print(warning, file=sys.stderr)
