"""The base class of models, and networks built and loaded from options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llie.archs import blocks_of, card_of, needs_weights
from llie.engine.recompute import recompute
from llie.errors import UserError
from llie.registry import ARCH_REGISTRY, DISCRIMINATOR_REGISTRY, build
from llie.weights import load_weights


class Model:
    """Networks, and the loss of each phase of a training step. Subclasses implement `loss`.

    Attributes:
        networks: bare networks by name: "g" is the generator, "d" the discriminator.
        trained: the same networks as wrapped by the trainer (DDP, compiled). A phase calls its own network through
            this, so that gradients are exchanged, and all others through `networks`.
        controls: further arguments of "g" in evaluation, not in training.
        criteria: losses with their own weights, which must be on the networks' device.
        streams: names of the data streams that the model uses besides the pairs.
    """

    streams: tuple[str, ...] = ()

    def __init__(self, networks: Mapping[str, nn.Module], controls: Mapping[str, Any] | None = None):
        self.networks = dict(networks)
        self.controls = dict(controls or {})
        self.trained = dict(networks)
        self.criteria = nn.ModuleList()

    def to(self, device: torch.device, channels_last: bool = False) -> None:
        """Move networks and losses to a device and memory layout."""
        for network in self.networks.values():
            network.to(device)
            if channels_last:
                network.to(memory_format=torch.channels_last)
        self.criteria.to(device)

    def recompute_blocks(self) -> None:
        """From now on, recompute the blocks of "g" in the backward pass: less memory, more time, the same result.

        Raises:
            UserError: its card names no blocks.
        """
        network = self.networks["g"]
        blocks = blocks_of(network)
        if not blocks:
            raise UserError(
                f"train.checkpoint: {type(network).__name__} names no blocks that can be recomputed (card.blocks); set "
                "it to false, and lower gt_size or batch_size_per_gpu instead"
            )
        recompute(network, blocks)

    def phases(self, iteration: int) -> tuple[str, ...]:
        """Names of the networks to step in this iteration, in order."""
        return ("g",)

    def loss(self, phase: str, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the phase's network on this batch, and values to log (detached)."""
        raise NotImplementedError  # every model has its own

    def training_inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Entries of the batch that are arguments of "g" in training, besides the image."""
        return {name: batch[name] for name in card_of(self.networks["g"]).training_inputs if name in batch}

    def predict(self, network: Callable[..., Any], batch: dict[str, Any]) -> Tensor:
        """The enhanced images (B, 3, H, W) of a batch, by the given network in evaluation mode."""
        return result_of(network(batch["lq"], **self.controls))


def result_of(outputs: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The enhanced image among a network's outputs.

    Raises:
        UserError: the network returns something else.
    """
    if isinstance(outputs, Mapping):
        outputs = outputs.get("out", outputs)
    if not isinstance(outputs, Tensor):
        what = f"a mapping of {', '.join(outputs)}" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
        raise UserError(f"the network returned {what}; it must return a tensor, or a mapping with the result as 'out'")
    return outputs


def in_full_precision(outputs: Any) -> Any:
    """Outputs of an autocast network as float32, for losses."""
    if isinstance(outputs, Mapping):
        return {name: in_full_precision(value) for name, value in outputs.items()}
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


def create_network(options: Mapping[str, Any], name: str = "g", trained: bool = False) -> nn.Module:
    """Build `network_<name>` of the options, and load `path.pretrain_network_<name>` if it is given.

    Args:
        options: resolved options.
        name: "g" or "d".
        trained: whether all parts of the network need weights, as for a test; otherwise only frozen parts do. A network
            without parameters needs none.

    Raises:
        UserError: unknown network or argument, or weights that do not fit or are missing.
    """
    registry = DISCRIMINATOR_REGISTRY if name == "d" else ARCH_REGISTRY
    network: nn.Module = build(registry, options[f"network_{name}"], f"network_{name}")
    path = options.get("path") or {}
    if trained and not path.get(f"pretrain_network_{name}") and needs_weights(network):
        raise UserError(
            f"path.pretrain_network_{name}: missing; give the weights to test, for instance "
            f"experiments/{options['name']}/models/net_{name}_latest.pth, which training under this name writes"
        )
    key = path.get(f"param_key_{name}", "auto")
    try:
        load_weights(
            network,
            path.get(f"pretrain_network_{name}") or [],
            prefer="params_ema" if key in (None, "auto") else key,
            strict=path.get(f"strict_load_{name}", True),
            need=[part for part in card_of(network).parts if trained or _is_frozen(network.get_submodule(part))],
        )
    except UserError as error:
        raise UserError(f"path.pretrain_network_{name}: {error}") from error
    return network


def _is_frozen(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters())
