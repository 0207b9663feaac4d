"""`llie convert`: write only the weights of a checkpoint, as safetensors."""

from __future__ import annotations

import argparse

from llie.commands import Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("convert", help="write the weights of a checkpoint as safetensors, to publish or deploy")
    parser.add_argument("model", metavar="CHECKPOINT", help="file, run folder, run name or hf:OWNER/REPO")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write, ending in .safetensors")
    parser.add_argument("--half", action="store_true", help="store float16: half the size, rounded to 11 bits")
    parser.add_argument("--params", action="store_true", help="write the weights themselves, not their moving average")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file."""
    from pathlib import Path

    from llie.data.readers import write_file
    from llie.errors import UserError
    from llie.weights.convert import as_safetensors

    output = Path(options.output)
    if output.suffix != ".safetensors":
        raise UserError(f"{output} must end in .safetensors")
    content = as_safetensors(options.model, options.half, "params" if options.params else "params_ema")
    write_file(output, content)
    print(f"{output}: {len(content) / 1e6:.2f} MB")
    return 0
