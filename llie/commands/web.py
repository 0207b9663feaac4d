"""`llie web`: a page in the browser to drop photographs on."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from llie.commands import Verbs
from llie.commands._network import add_plugin_argument
from llie.commands._numbers import count_of
from llie.errors import UserError


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("web", help="open a page in the browser that enhances photographs dropped on it")
    parser.add_argument(
        "--model", nargs="+", default=[], metavar="[NAME=]CHECKPOINT",
        help="networks to offer first, see `llie enhance --help` (the one that ships, those with weights in "
        "$LLIE_WEIGHTS and the classical methods are offered in any case)",
    )  # fmt: skip
    parser.add_argument(
        "--device", nargs="+", default=[], metavar="DEVICE",
        help="cpu, cuda:0 ...; each enhances one photograph at a time (default: a GPU if there is one, otherwise cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", metavar="SIZE",
        help="memory limit for one photograph, such as 4GB, for networks that can work in pieces",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, local only)")
    parser.add_argument(
        "--port", type=int, default=7860, help="port to listen on; 0: any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--max-bytes", type=count_of("bytes"), default=64 * 2**20, metavar="N",
        help="largest size of an upload in bytes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-pixels", type=count_of("pixels"), default=50_000_000, metavar="N",
        help="largest number of pixels of a photograph (default: %(default)s)",
    )  # fmt: skip
    add_plugin_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("llie web needs gradio: pip install 'llie[web]'")

    from llie.engine.allocator import expect_many_sizes, keep_large_blocks
    from llie.inference.enhancer import pick_device
    from llie.registry import load_plugins
    from llie.web.models import Devices, offered
    from llie.web.serve import serve_page
    from llie.web.work import Limits

    keep_large_blocks()
    expect_many_sizes()
    load_plugins(options.plugin)
    devices = [str(pick_device(device)) for device in options.device or [None]]
    if options.host not in ("127.0.0.1", "::1", "localhost"):
        print("anyone who reaches this address can use the page", file=sys.stderr)
    limits = Limits(options.max_bytes, options.max_pixels)
    serve_page(Devices(offered(options.model), devices, options.memory), limits, options.host, options.port)
