"""Runs an ONNX file as a network, with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llie.errors import UserError, suggest
from llie.export.extra import require
from llie.export.facts import controls_in
from llie.export.quiet import quiet

_SUFFIX = "ExecutionProvider"
_ALSO = {"directml": "dml", "trt": "tensorrt", "gpu": "cuda"}  # usual names -> onnxruntime's, in lower case
_REMOTE = "AzureExecutionProvider"  # sends work to a server; common packages list it first
_FOR_DEVICE = {"cpu": "cpu", "cuda": "cuda"}


class OnnxNetwork(nn.Module):
    """An ONNX file as a module: (B, 3, H, W) in [0, 1] and controls -> the enhanced image.

    Args:
        path: file of `llie export`, or any other that maps such an image to one of the same size.
        provider: execution provider of onnxruntime: "cpu", "cuda", "coreml", "directml", "openvino" ...; None: the
            first one that the installed onnxruntime lists.

    Attributes:
        facts: the metadata of the file.
        control_names: names of its optional inputs.
        provider: onnxruntime's name of the execution provider.

    Raises:
        UserError: onnxruntime is not installed; the file is damaged, or not such a network; or the provider is not
            installed or cannot start.
    """

    def __init__(self, path: str | Path, provider: str | None = None):
        super().__init__()
        runtime = require("onnxruntime")
        available = [name for name in runtime.get_available_providers() if name != _REMOTE]
        wanted = available if provider is None else [pick_provider(provider, available)]
        self.path = Path(path)
        self.session = _open(runtime, self.path, wanted)
        self.provider = self.session.get_providers()[0]
        if self.provider not in wanted:
            raise UserError(
                f"onnxruntime could not start {_short(wanted[0])} here: its device, driver or a library is missing; "
                "use --provider cpu"
            )
        self.facts: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        self.image = self._image_input()
        self.control_names = [given.name for given in self.session.get_overridable_initializers()]
        self.defaults = controls_in(self.facts, str(path))

    def forward(self, x: Tensor, **controls: Any) -> Tensor:
        """Run the file; the result is on the device of `x`."""
        feeds = {self.image: np.ascontiguousarray(x.detach().float().cpu().numpy())}
        for name, value in controls.items():
            feeds[name] = np.array(value, np.float32)
        try:
            (result,) = self.session.run(None, feeds)
        except Exception as error:  # onnxruntime's errors have no common class but this
            raise UserError(f"{self.path}: onnxruntime: {str(error).splitlines()[0]}") from error
        return torch.from_numpy(result).to(x.device)

    def _image_input(self) -> str:
        """The name of the input for the image.

        Raises:
            UserError: the file does not map one image to another.
        """
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shapes = [value.shape for value in (*inputs, *outputs)]
        if len(shapes) != 2 or any(len(shape) != 4 or shape[1] != 3 for shape in shapes):
            raise UserError(
                f"{self.path} takes {shapes[: len(inputs)]} and gives {shapes[len(inputs) :]}; "
                "a network here maps one image (batch, 3, height, width) to another"
            )
        if inputs[0].type != "tensor(float)":
            raise UserError(f"{self.path} takes {inputs[0].type}; a network here takes float32")
        return inputs[0].name


def pick_provider(name: str, available: list[str]) -> str:
    """Onnxruntime's name of a provider, such as "CUDAExecutionProvider" for "cuda".

    Args:
        name: short or full name, in upper or lower case.
        available: full names of the providers of this onnxruntime.

    Raises:
        UserError: this onnxruntime does not have the provider; the message lists those that it has.
    """
    short = {_short(provider): provider for provider in available}
    folded = name.lower().removesuffix(_SUFFIX.lower())
    found = short.get(_ALSO.get(folded, folded))
    if found is None:
        raise UserError(
            f"no provider {name!r} in this onnxruntime.{suggest(folded, short)} It has: {', '.join(short)}; "
            "others come with other packages, such as onnxruntime-gpu"
        )
    return found


def provider_for(device: str | torch.device | None) -> str | None:
    """The provider for a PyTorch device; None if there is no device, or no such provider."""
    return None if device is None else _FOR_DEVICE.get(torch.device(device).type)


def _open(runtime: Any, path: Path, providers: list[str]) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, so they need not be printed, too
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        with quiet():  # it warns about a provider that cannot start
            return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common class but this
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is damaged, or not an ONNX file that this onnxruntime reads: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _short(provider: str) -> str:
    return provider.removesuffix(_SUFFIX).lower()
