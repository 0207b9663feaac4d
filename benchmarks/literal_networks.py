"""The literal form of each network, with the weights of ours: baselines of training steps and of times on GPUs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from literal_drbn import LiteralDRBN
from literal_hdm import LiteralHDM
from literal_hvi import LiteralSMM, official_names
from literal_lfpv import LiteralLFPV
from literal_snr_aware import LiteralSNRAware
from literal_zero_dce import LiteralZeroDCE
from mamballie_inference import by_copies
from torch import Tensor, nn

from llie.archs import mamballie

STEP_BY_STEP = 32 * 32  # pixels; the literal scan takes one step per pixel, so larger images would take minutes

# The outputs of each literal network have the names that ours have in training.
NAMES = {
    "HVISMM": ("out", "base", "k"),
    "HVICIDNet": ("out", "k"),
    "LFPV": ("out", "plain"),
    "DRBN": ("out", "half", "quarter"),
    "ZeroDCE": ("out", "curves"),
}
SAME_KEYS: dict[str, Callable[[], nn.Module]] = {
    "SNRAware": LiteralSNRAware,
    "DRBN": LiteralDRBN,
    "HDM": LiteralHDM,
    "ZeroDCE": LiteralZeroDCE,
}


def literal_form(name: str, network: nn.Module, arguments: dict[str, Any], pixels: int) -> nn.Module | None:
    """The literal form of a network, with outputs by name; None if there is none for these arguments.

    Args:
        name: the network's registered name.
        network: ours; it gets the weights of the literal one where only these can be converted (LFPV).
        arguments: what it was built with, besides its defaults.
        pixels: number of pixels of an image.
    """
    if name in ("HVISMM", "HVICIDNet"):
        literal: Any = LiteralSMM(**arguments, cidnet=name == "HVICIDNet")
        literal.load_state_dict(official_names(network.state_dict(), literal))
    elif name == "MambaLLIE" and pixels <= STEP_BY_STEP:
        literal = _LiteralScan(copy.deepcopy(network))
    elif name == "LFPV" and not arguments:
        literal = LiteralLFPV()
        network.load_state_dict(literal.weights_as_ours())
    elif name in SAME_KEYS and not arguments:
        literal = SAME_KEYS[name]()
        literal.load_state_dict(network.state_dict())
    else:
        return None
    return _Named(literal, NAMES.get(name, ("out",)))


class _Named(nn.Module):
    """A network whose outputs, a tensor or a tuple, get names."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = self.network(x)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return dict(zip(self.names, outputs, strict=False))


class _LiteralScan(nn.Module):
    """MambaLLIE with the usual implementation of the scan."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """Run the network with the other scan."""
        ours, mamballie.ss2d = mamballie.ss2d, by_copies
        try:
            return self.network(x)
        finally:
            mamballie.ss2d = ours
