"""The layout of the page, and what its controls do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio

from llie.data.formats import PHOTO_SUFFIXES, missing_package
from llie.errors import UserError
from llie.web.models import Devices
from llie.web.sessions import Sessions
from llie.web.work import Limits, Taste, enhance_upload

_WAITING = 32  # largest number of waiting visitors; others are asked to come back later
# Fonts of the visitor's system; gradio's own themes would load theirs from another host.
THEME = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def build_page(devices: Devices, limits: Limits, sessions: Sessions) -> gradio.Blocks:
    """The page, ready to launch.

    Args:
        devices: run the networks.
        limits: largest uploads.
        sessions: hold the files of visitors.
    """

    def enhance(
        upload: str | None, model: str, strength: float, denoise: float, exposure: float, request: gradio.Request
    ) -> tuple[Any, Any, Any]:
        if upload is None:
            return None, gradio.update(interactive=False, value=None), ""
        try:
            with sessions.results(str(request.session_hash), Path(upload)) as folder:
                taste = Taste(model, strength, denoise, exposure)
                done = enhance_upload(Path(upload), taste, devices, limits, folder)
        except UserError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error
        pictures = (str(done.before), str(done.after))
        return pictures, gradio.update(interactive=True, value=str(done.result)), "  \n".join(done.notes)

    def choose(model: str) -> Any:
        try:
            return gradio.update(visible="denoise" in devices.controls(model))
        except UserError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error

    def leave(request: gradio.Request) -> None:
        sessions.close(str(request.session_hash))

    first = next(iter(devices.models))
    endings = sorted(suffix for suffix in PHOTO_SUFFIXES - {".npy"} if missing_package(suffix) is None)
    with gradio.Blocks(title="llie", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gradio.Markdown(
            "# Brighten a dark photograph\n"
            f"At most {limits.bytes / 2**20:.3g} MiB and {limits.pixels / 1e6:.3g} megapixels. "
            "The photograph is deleted when you close the page."
        )
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(label="Photograph", file_types=endings, elem_id="upload", height=160)
                model = gradio.Dropdown(list(devices.models), value=first, label="Network", elem_id="model")
                strength = gradio.Slider(0, 1, 1, step=0.05, label="Strength")
                denoise = gradio.Slider(
                    0, 1, 1, step=0.05, label="Noise removal", visible="denoise" in devices.controls(first)
                )
                exposure = gradio.Slider(-2, 2, 0, step=0.1, label="Exposure (EV)")
                again = gradio.Button("Enhance", elem_id="enhance")
            with gradio.Column(scale=3):
                slider = gradio.ImageSlider(
                    label="Before and after",
                    type="filepath",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="slider",
                    max_height=700,
                )
                notes = gradio.Markdown()
                download = gradio.DownloadButton("Download", interactive=False, elem_id="download")
        inputs: list[Any] = [upload, model, strength, denoise, exposure]
        gradio.on(
            [upload.upload, upload.clear, again.click],
            enhance,
            inputs,
            [slider, download, notes],
            concurrency_limit=devices.number,
            concurrency_id="devices",
            api_visibility="private",
        )
        model.change(choose, model, denoise, concurrency_id="devices", api_visibility="private")
        page.unload(leave)
    page.queue(max_size=_WAITING)
    return page
