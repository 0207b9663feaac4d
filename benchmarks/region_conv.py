"""Region and deformable convolution, forward and with backward, against their usual forms on a CPU.

    python benchmarks/region_conv.py [--size 150x100] [--threads 2] [--rounds 9]

Region convolution: all kernels everywhere by one wide convolution, times the mask, summed. Deformable convolution:
torchvision's operator, which on CPUs runs on one thread.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from timing import compare, report
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

from llie.ops.deform_conv import deform_conv2d
from llie.ops.region_conv import region_conv


def all_products(x: Tensor, kernels: Tensor, mask: Tensor) -> Tensor:
    products = F.conv2d(x, kernels[0].flatten(0, 1), padding=1)
    return (products.unflatten(1, kernels.shape[1:3]) * mask[:, :, None]).sum(1)


def with_backward(function: Callable[..., Tensor], *leaves: Tensor) -> Callable[[], Sequence[Tensor]]:
    return lambda: torch.autograd.grad(function(*leaves).sum(), leaves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="150x100", help="WIDTHxHEIGHT of the map")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    width, height = (int(side) for side in arguments.size.split("x"))

    x = torch.randn(1, 64, height, width)
    nhwc = x.contiguous(memory_format=torch.channels_last)  # as the network has it
    kernels = torch.randn(1, 5, 64, 64, 3, 3) / 24
    compact = F.interpolate(torch.rand(1, 1, 6, 8), (height, width), mode="bicubic").clamp(0, 0.99)[:, 0]
    for name, regions in (("compact", (5 * compact).long()), ("random", torch.randint(5, (1, height, width)))):
        mask = F.one_hot(regions, 5).permute(0, 3, 1, 2).float()
        forms = {
            "wide convolution, mask": lambda x, kernels, mask=mask: all_products(x, kernels, mask),
            "ours": lambda x, kernels, regions=regions: region_conv(x, kernels, regions),
        }
        measure(
            f"Region convolution, {name} regions, 64 channels, {arguments.size}", forms, x, nhwc, kernels, arguments
        )

    offset, mask = 3 * torch.randn(1, 18, height, width), torch.rand(1, 9, height, width)
    forms = {
        "torchvision": lambda x, w, o, m: torchvision_deform_conv2d(x, o, w, padding=1, mask=m),
        "ours": lambda x, w, o, m: deform_conv2d(x, o, w, padding=1, mask=m),
    }
    leaves = (kernels[0, 0], offset, mask)
    measure(f"Deformable convolution, 64 channels, {arguments.size}", forms, x, nhwc, leaves, arguments)


def measure(
    title: str,
    forms: dict[str, Callable[..., Tensor]],
    x: Tensor,
    nhwc: Tensor,
    others: Tensor | tuple[Tensor, ...],
    arguments: argparse.Namespace,
) -> None:
    """The baseline gets the map in the usual layout, ours as the network has it."""
    others = others if isinstance(others, tuple) else (others,)
    inputs = {name: (x if index == 0 else nhwc, *others) for index, name in enumerate(forms)}
    with torch.no_grad():
        outputs = [form(*inputs[name]) for name, form in forms.items()]
        assert (outputs[0] - outputs[1]).abs().max() < 2e-4 * outputs[0].abs().max()
        forward = {name: (lambda form=form, name=name: form(*inputs[name])) for name, form in forms.items()}
        report(f"{title}, forward", compare(forward, arguments.rounds))
    both = {
        name: with_backward(form, *(tensor.detach().requires_grad_() for tensor in inputs[name]))
        for name, form in forms.items()
    }
    report(f"{title}, forward and backward", compare(both, arguments.rounds))


if __name__ == "__main__":
    main()
