"""Everything that training imports: a fork server loads it once, and every run started from it begins at once."""

import torch._dynamo  # torch's optimisers import it when they are first made, which takes seconds

from llie import registry, train

for names in vars(registry).values():
    if isinstance(names, registry.Registry):
        names.keys()

__all__ = ["torch", "train"]
