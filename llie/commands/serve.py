"""`llie serve`: a server that enhances the pictures it is sent."""

from __future__ import annotations

import argparse

from llie.commands import Verbs
from llie.commands._listening import add_address_arguments, add_networks_arguments, add_upload_limits, warn_if_open
from llie.commands._network import prepare
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
    parser = verbs.add_parser("serve", help="run an HTTP server that enhances pictures", epilog=_EPILOG)
    network = add_networks_arguments(
        parser, "picture",
        models="networks to offer, see `llie enhance --help`; clients that name none get the first "
        "(default: the network that ships with llie)",
        devices="cpu, cuda:0 ... (default: all GPUs, or the CPU if there is none)",
    )  # fmt: skip
    network.add_argument(
        "--batch", type=count_of("pictures"), default=4, metavar="N",
        help="largest number of pictures of the same size in one batch (default: %(default)s)",
    )  # fmt: skip
    address = add_address_arguments(parser, port=8000)
    address.add_argument(
        "--token-file", metavar="FILE", help="file with the token that clients must send (or set $LLIE_TOKEN)"
    )
    limits = add_upload_limits(parser, "picture", mebibytes=32)
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

    from llie.server.access import read_token
    from llie.server.limits import Limits
    from llie.server.models import load_models
    from llie.server.run import serve
    from llie.server.service import Service

    token = read_token(options.token_file)
    prepare(options.plugin)
    models = load_models(options.model, options.device, options.memory)
    limits = Limits(
        bytes=options.max_bytes,
        pixels=options.max_pixels,
        queue=options.queue,
        batch=options.batch,
        seconds=options.timeout,
        grace=options.grace,
    )
    if token is None:
        warn_if_open(options.host, "anyone who reaches this address can use the server; --token-file demands a token")
    return serve(Service(models, limits), options.host, options.port, token)
