"""Weights: a file, a run or a state dict goes in, a network with these weights comes out.

`find` locates files, `fetch` downloads them, `files` reads them safely, `layouts` unwraps their content, `identify`
recognises the network, `load` loads the weights into it. `hashing` identifies weights. Models, losses (for backbones)
and inference call it.
"""

from llie.weights.fetch import NotFetched, fetch
from llie.weights.files import read_checkpoint
from llie.weights.find import find_weights, resolve_checkpoint
from llie.weights.hashing import hash_of_weights
from llie.weights.identify import identify
from llie.weights.layouts import state_dict_of
from llie.weights.load import load_weights

__all__ = [
    "NotFetched",
    "fetch",
    "find_weights",
    "hash_of_weights",
    "identify",
    "load_weights",
    "read_checkpoint",
    "resolve_checkpoint",
    "state_dict_of",
]
