"""`llie web`: a page in the browser to drop photographs on."""

from __future__ import annotations

import argparse
import importlib.util

from llie.commands import Verbs
from llie.commands._listening import add_address_arguments, add_networks_arguments, add_upload_limits, warn_if_open
from llie.commands._network import prepare
from llie.errors import UserError


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("web", help="open a page in the browser that enhances photographs dropped on it")
    add_networks_arguments(
        parser, "photograph",
        models="networks to offer first, see `llie enhance --help` (the one that ships, those with weights in "
        "$LLIE_WEIGHTS and the classical methods are offered in any case)",
        devices="cpu, cuda:0 ...; each enhances one photograph at a time "
        "(default: a GPU if there is one, otherwise cpu)",
    )  # fmt: skip
    add_address_arguments(parser, port=7860)
    add_upload_limits(parser, "photograph", mebibytes=64)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("llie web needs gradio: pip install 'llie[web]'")

    from llie.inference.enhancer import pick_device
    from llie.web.models import Devices, offered
    from llie.web.serve import serve_page
    from llie.web.work import Limits

    prepare(options.plugin)
    devices = [str(pick_device(device)) for device in options.device or [None]]
    warn_if_open(options.host, "anyone who reaches this address can use the page")
    limits = Limits(options.max_bytes, options.max_pixels)
    serve_page(Devices(offered(options.model), devices, options.memory), limits, options.host, options.port)
