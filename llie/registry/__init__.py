"""Registries: a name and arguments go in, the registered class, or an object of it, comes out.

`names` is the registry itself, `arguments` checks arguments before a class is built, `kinds` compares values with type
annotations, `plugins` imports users' own files. All other packages may use it; it imports only `llie.errors`.
"""

from llie.registry.arguments import argument_names, build, check_arguments
from llie.registry.names import Fallback, Registry
from llie.registry.plugins import LoadedPlugins, load_plugins

ARCH_REGISTRY = Registry("network", "llie.archs")
DISCRIMINATOR_REGISTRY = Registry("discriminator", "llie.archs")
LOSS_REGISTRY = Registry("loss", "llie.losses")
METRIC_REGISTRY = Registry("metric", "llie.metrics")
DATASET_REGISTRY = Registry("dataset", "llie.data")
MODEL_REGISTRY = Registry("model", "llie.models")

REGISTRIES = (
    ARCH_REGISTRY,
    DISCRIMINATOR_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    DATASET_REGISTRY,
    MODEL_REGISTRY,
)

__all__ = [
    "ARCH_REGISTRY",
    "DATASET_REGISTRY",
    "DISCRIMINATOR_REGISTRY",
    "LOSS_REGISTRY",
    "METRIC_REGISTRY",
    "MODEL_REGISTRY",
    "REGISTRIES",
    "Fallback",
    "LoadedPlugins",
    "Registry",
    "argument_names",
    "build",
    "check_arguments",
    "load_plugins",
]
