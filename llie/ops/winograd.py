"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3), for CPUs.

Source: A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016. A tile of 4x4 results
needs 6x6 values of the image. Both the tile and the kernel are evaluated as polynomials at six points along each axis;
there, a convolution is a product: 36 products instead of 144 for each pair of channels. Over all channels and tiles,
these are 36 matrix products. All of it is computed in C (`winograd_kernel.py`), a few tiles at a time, or, without a
compiler, by matrix products (`winograd_matrices.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llie.ops import integers, winograd_kernel, winograd_matrices
from llie.ops.c_library import available
from llie.ops.integers import Integers
from llie.ops.parts import new_map, watched
from llie.ops.winograd_matrices import TILE, Output

LEAST_OF_INTEGERS = 32  # channels, from which on they pay


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size; see `convolve_3x3`.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        bias: whether it has one.
        padding_mode: "zeros", or "replicate" for the outermost values.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        padding_mode: Literal["zeros", "replicate"] = "zeros",
    ):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias, padding_mode=padding_mode)

    def forward(self, x: Tensor, relu: bool = False, added: Tensor | None = None, more: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W); plus `added`, then ReLU, if wanted. `more`: the last of the C channels."""
        replicated = self.padding_mode == "replicate"
        return convolve_3x3(x, self.weight, self.bias, self._kept(), relu, added, more, replicated)

    def _kept(self) -> Kernels | None:
        kernels: Kernels | None = self.__dict__.get("_kernels")
        return None if kernels is None or torch.is_grad_enabled() or not kernels.are_of(self.weight) else kernels

    def fuse(self) -> None:
        """Keep the kernel as `winograd` multiplies by it; see `llie.ops.fusion.fuse`."""
        # Stored outside the module's attributes, so that copies and checkpoints do not contain it.
        object.__setattr__(self, "_kernels", Kernels(self.weight))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_kernels"}


def convolve_3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernels: Kernels | None = None,
    relu: bool = False,
    added: Tensor | None = None,
    more: Tensor | None = None,
    replicated: bool = False,
) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1) + added`, then ReLU, if wanted; on CPUs by `winograd`, if it `pays`.

    The channels of `more`, if given, come after those of x. Beyond the edges are zeros, or the outermost values, if
    `replicated`.
    """
    suits = pays(x, weight) and (more is None or more.dtype == x.dtype)
    if suits and not torch.is_grad_enabled() and (added is None or _fits(added, x, weight)):  # in one step
        kernel = kernels.factor if kernels else Kernels(weight).forward
        return _convolve(x, kernel, bias, len(weight), result_type(x), relu, added, more, replicated)
    x = x if more is None else torch.cat([x, more], dim=1)
    x = F.pad(x, (1, 1, 1, 1), mode="replicate") if replicated else x
    if suits:
        y = winograd(x, weight, bias, kernels)
        y = y[:, :, 1:-1, 1:-1] if replicated else y
    elif replicated:
        y = F.conv2d(x, weight, bias)
    else:
        y = F.conv2d(x, weight, bias, padding=1)
    if added is not None:
        y = y.add_(added) if added.dtype == y.dtype else y + added  # in place: half the memory
    return y.relu_() if relu else y


def _fits(added: Tensor, x: Tensor, weight: Tensor) -> bool:
    return added.dtype == result_type(x) and added.shape == (len(x), len(weight), *x.shape[2:])


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether `winograd` is faster than `F.conv2d(x, weight, padding=1)`, and may replace it.

    It may not where operations become a graph, or are counted, which needs the plain ones.
    """
    if not (x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and weight.shape[2:] == (3, 3)):
        return False
    if watched():
        return False
    types = {x.dtype, weight.dtype} | ({result_type(x)} if torch.is_autocast_enabled("cpu") else set())
    inputs, outputs = weight.shape[1], weight.shape[0]
    tiles = len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE)
    # With few tiles, most of the work is to transform the kernel, which VGG does once for its frozen ones.
    least_tiles = 48 if weight.requires_grad else 16
    if types == {torch.float32}:
        if _form(torch.float32) is winograd_kernel:
            return (
                tiles >= least_tiles and inputs >= 8 and (outputs >= 8 or inputs >= 32 or not torch.is_grad_enabled())
            )
        return tiles >= least_tiles and min(inputs, outputs) >= (64 if torch.is_grad_enabled() else 128)
    if types <= {torch.float32, torch.bfloat16} and (len(types) == 1 or torch.is_autocast_enabled("cpu")):
        fits = _form(torch.bfloat16) is winograd_kernel and not multiplies_bfloat16_in_tiles()
        return fits and tiles >= 4 * least_tiles and min(inputs, outputs) >= 24
    return False


class Kernels:
    """A kernel (C', C, 3, 3) as `winograd` multiplies by it; keep it for a kernel that does not change.

    Args:
        weight: the kernel.
    """

    def __init__(self, weight: Tensor):
        self.weight, self.written = weight, version(weight)

    def are_of(self, weight: Tensor) -> bool:
        """Whether they belong to this kernel, and it keeps its values."""
        return weight is self.weight and version(weight) == self.written

    @functools.cached_property
    def forward(self) -> Tensor:
        """Its values at the points."""
        return _form(self.weight.dtype).at_points(self.weight, backward=False)

    @property
    def factor(self) -> Tensor | Integers:
        """The same, in integers where these are wanted and fast."""
        return (self._integers if integers.wanted() else None) or self.forward

    @functools.cached_property
    def _integers(self) -> Integers | None:
        if _form(self.weight.dtype) is not winograd_kernel or min(self.weight.shape[:2]) < LEAST_OF_INTEGERS:
            return None
        if not winograd_kernel.has_integers():
            return None
        return winograd_kernel.rounded(self.forward, self.weight)

    @functools.cached_property
    def backward(self) -> Tensor:
        """Those of the flipped kernel, for the gradient of the image."""
        return _form(self.weight.dtype).at_points(self.weight, backward=True)


def version(parameter: Tensor) -> tuple[int, int]:
    """A value that changes whenever a parameter is written to, replaced or moved; except by its `.data`."""
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None, kernels: Kernels | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=1)`, to about the rounding error of the direct form.

    Args:
        x: (B, C, H, W); channels last is best.
        weight: (C', C, 3, 3).
        bias: (C',).
        kernels: `Kernels(weight)`, if they are known.

    Returns:
        (B, C', H, W), channels last; in the type of autocast, if that is enabled.
    """
    result: Tensor = _Winograd.apply(x, weight, bias, kernels)
    return result


def winograd_of_rows(
    x: Tensor, kernels: Kernels, bias: Tensor | None, above: int, height: int, relu: bool = False
) -> Tensor:
    """`winograd` for some rows of a larger map, without gradients; then ReLU, if wanted.

    Args:
        x: (B, C, H, W): these rows, and the ones before and after them, where there are any.
        kernels: of a kernel (C', C, 3, 3).
        bias: (C',).
        above: 1 if there is a row before them, or 0.
        height: the number of rows.
        relu: whether it is.

    Returns:
        (B, C', height, W), channels last; see `llie.ops.parts.new_map`.
    """
    result = new_map((len(x), len(kernels.weight), height, x.shape[3]), result_type(x))
    _form(x.dtype).convolve(_channels_last(x), kernels.factor, bias, [Output(result, relu=relu)], above)
    return result


def winograd_into(
    x: Tensor,
    kernels: Kernels,
    bias: Tensor | None,
    outputs: Sequence[Output],
    more: Tensor | None = None,
    above: int = 0,
) -> None:
    """`winograd` without gradients, whose channels go to several maps, one after another.

    Args:
        x: (B, C, H, W); or its first channels.
        kernels: of a kernel (C', C, 3, 3).
        bias: (C',).
        outputs: of C' channels together; all of the type of x.
        more: the other channels of x.
        above: 1 if the first row of x is the one before those of the outputs, or 0; outputs may have fewer rows than x.
    """
    more = None if more is None else _channels_last(more)
    _form(x.dtype).convolve(_channels_last(x), kernels.factor, bias, outputs, above, more)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernels: Kernels | None) -> Tensor:
        # A frozen kernel needs no copy of the image; a kernel that learns is not kept at the points.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.kernels, ctx.type = kernels, x.dtype
        return _convolve(x, (kernels or Kernels(weight)).forward, bias, len(weight), result_type(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        differentiable = torch.is_grad_enabled()  # these gradients have gradients
        grad = grad if differentiable else _channels_last(grad)
        if ctx.needs_input_grad[0]:
            if differentiable:
                of_x = winograd(grad, weight.flip(2, 3).transpose(0, 1)).to(ctx.type)
            else:
                kernels = ctx.kernels or Kernels(weight)
                of_x = _convolve(grad, kernels.backward, None, weight.shape[1], ctx.type)
        if ctx.needs_input_grad[1]:
            of_weight = _plain_gradient(x, weight, grad) if differentiable else _correlate(x, grad).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3), dtype=weight.dtype)
        return of_x, of_weight, of_bias, None


def _plain_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """That of the kernel, by PyTorch, which knows its gradient."""
    sides, none, only_weight = (1, 1), (0, 0), (False, True, False)
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad.to(weight.dtype), x.to(weight.dtype), weight, None, sides, sides, sides, False, none, 1, only_weight
    )
    return found[1]


def _convolve(
    x: Tensor,
    kernel: Tensor | Integers,
    bias: Tensor | None,
    outputs: int,
    dtype: torch.dtype,
    relu: bool = False,
    added: Tensor | None = None,
    more: Tensor | None = None,
    replicated: bool = False,
) -> Tensor:
    """The convolution with a kernel at the points; then the sum with `added`, and ReLU, if wanted."""
    size = (len(x), outputs, *x.shape[2:])
    result = torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)
    output = Output(result, None if added is None else _channels_last(added), relu)
    more = None if more is None else _channels_last(more)
    _form(x.dtype).convolve(_channels_last(x), kernel, bias, [output], more=more, replicated=replicated)
    return result


def _correlate(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the kernel, from the image and the gradient of the result."""
    return _form(x.dtype).correlate(_channels_last(x), _channels_last(grad))


def result_type(x: Tensor) -> torch.dtype:
    """Of a convolution or a linear layer: that of autocast, or of the input."""
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else x.dtype


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _form(dtype: torch.dtype) -> ModuleType:
    return winograd_kernel if dtype in (torch.float32, torch.bfloat16) and _kernel_works() else winograd_matrices


@functools.cache
def multiplies_bfloat16_in_tiles() -> bool:
    """Whether the processor has AMX, whose direct convolutions are faster in bfloat16."""
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


@functools.cache
def _kernel_works() -> bool:
    return available(winograd_kernel.prepare, "convolutions")
