"""`llie serve`: a server that enhances the pictures it is sent."""

from __future__ import annotations

import argparse
import sys

from llie.commands import Verbs
from llie.commands._network import add_plugin_argument
from llie.commands._numbers import count_of, seconds
from llie.errors import UserError

_EPILOG = """\
example:
  llie serve &
  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8000/enhance -o brighter.jpg

SIGTERM and Ctrl-C end it when every accepted request has its answer; a second one ends it at once.
exit code: 0 all were answered, 1 some were cut off, 2 a mistake in the command
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "serve", help="run an HTTP server that enhances pictures", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    network = parser.add_argument_group("network")
    network.add_argument(
        "--model", nargs="+", default=[], metavar="[NAME=]CHECKPOINT",
        help="networks to offer, see `llie enhance --help`; clients that name none get the first "
        "(default: the network that ships with llie)",
    )  # fmt: skip
    add_plugin_argument(network)
    network.add_argument(
        "--device", nargs="+", default=[], metavar="DEVICE",
        help="cpu, cuda:0 ... (default: all GPUs, or the CPU if there is none)",
    )  # fmt: skip
    network.add_argument(
        "--memory", metavar="SIZE",
        help="memory limit for one picture, such as 4GB "
        "(default: half of the free memory)",
    )  # fmt: skip
    network.add_argument(
        "--batch", type=count_of("pictures"), default=4, metavar="N",
        help="largest number of pictures of the same size in one batch (default: %(default)s)",
    )  # fmt: skip
    address = parser.add_argument_group("address")
    address.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, local only)")
    address.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port to listen on; 0: any free one (default: %(default)s)"
    )
    address.add_argument(
        "--token-file", metavar="FILE", help="file with the token that clients must send (or set $LLIE_TOKEN)"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-bytes", type=count_of("bytes"), default=32 * 2**20, metavar="N",
        help="largest size of an upload in bytes (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--max-pixels", type=count_of("pixels"), default=50_000_000, metavar="N",
        help="largest number of pixels of a picture (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--queue", type=count_of("requests"), default=32, metavar="N",
        help="largest number of accepted requests without an answer (default: %(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS",
        help="time limit of an upload, and again of its answer (default: %(default)g)",
    )  # fmt: skip
    limits.add_argument(
        "--grace", type=seconds, default=25.0, metavar="SECONDS",
        help="time limit for the last answers after a stop signal (default: %(default)g)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve; returns 1 when accepted requests were cut off."""
    try:
        import fastapi_offline  # noqa: F401 - brings FastAPI
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"llie serve needs {error.name}: pip install 'llie[server]'") from error

    from llie.engine.allocator import expect_many_sizes, keep_large_blocks
    from llie.registry import load_plugins
    from llie.server.access import read_token
    from llie.server.limits import Limits
    from llie.server.models import load_models
    from llie.server.run import serve
    from llie.server.service import Service

    token = read_token(options.token_file)
    keep_large_blocks()
    expect_many_sizes()
    load_plugins(options.plugin)
    models = load_models(options.model, options.device, options.memory)
    limits = Limits(
        bytes=options.max_bytes,
        pixels=options.max_pixels,
        queue=options.queue,
        batch=options.batch,
        seconds=options.timeout,
        grace=options.grace,
    )
    if token is None and options.host not in ("127.0.0.1", "::1", "localhost"):
        print("anyone who reaches this address can use the server; --token-file demands a token", file=sys.stderr)
    return serve(Service(models, limits), options.host, options.port, token)
