"""The paths of the server: /enhance, /models, /healthz, /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from llie.errors import suggest
from llie.server.access import check_token
from llie.server.body import read_picture
from llie.server.jobs import Settings
from llie.server.limits import Refused, busy
from llie.server.media import answer_suffix, media_types, suffix_of
from llie.server.models import CONTROLS, described, settable
from llie.server.service import Answer, Service

NOTES = "X-Llie-Notes"  # header of the answer that lists losses


class Problem(BaseModel):
    """An error: why a request was not carried out."""

    error: str


class Model(BaseModel):
    """A network of this server."""

    name: str
    network: str
    settings: list[str]
    default: bool


_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "no token, or a wrong one"},
    406: {"model": Problem, "description": "no format of the header Accept can be written"},
    408: {"model": Problem, "description": "the upload took too long"},
    413: {"model": Problem, "description": "too many bytes or pixels"},
    415: {"model": Problem, "description": "not an image, or a format that is not read"},
    422: {"model": Problem, "description": "a damaged image, or a wrong parameter"},
    429: {"model": Problem, "description": "as many requests wait as the server takes"},
    500: {"model": Problem, "description": "an error in the server; its log has the details"},
    503: {"model": Problem, "description": "the server is stopping, or there was no result in time"},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE = {"schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY["schema"]}}}
_BODY = {"required": True, "content": {"image/*": _BINARY, "multipart/form-data": _FILE}}

guarded = APIRouter(dependencies=[Depends(check_token)])
public = APIRouter()

_PARAMETERS = ("model", "strength", "exposure", "quality", *CONTROLS)


def _control(name: str) -> Any:
    low, high = CONTROLS[name]
    return Query(ge=low, le=high, description=f"{low:g} to {high:g}, for networks that have it (see /models)")


@guarded.post(
    "/enhance",
    response_class=Response,
    responses={**_REFUSALS, 200: {"description": "the enhanced picture", "content": {"image/*": _BINARY}}},
    openapi_extra={"requestBody": _BODY},
)
async def enhance(
    request: Request,
    model: Annotated[str | None, Query(description="a name that /models lists; the first if left out")] = None,
    strength: Annotated[float, Query(ge=0, le=1, description="0 (no effect) to 1")] = 1.0,
    exposure: Annotated[float, Query(ge=-10, le=10, description="brighter (1) or darker (-1), in EV")] = 0.0,
    denoise: Annotated[float | None, _control("denoise")] = None,
    alpha_s: Annotated[float | None, _control("alpha_s")] = None,
    alpha_i: Annotated[float | None, _control("alpha_i")] = None,
    alpha_rgb: Annotated[float | None, _control("alpha_rgb")] = None,
    quality: Annotated[int, Query(ge=1, le=100, description="of lossy formats")] = 95,
) -> Response:
    """Enhance a picture, sent as the body or as the file of a form.

    The answer has the picture's size, bit depth, EXIF data, colour profile and transparency. It has the same format,
    unless the header Accept prefers another.
    """
    service: Service = request.app.state.service
    unknown = next((name for name in request.query_params if name not in _PARAMETERS), None)
    if unknown is not None:
        raise Refused(422, f"there is no parameter {unknown!r}.{suggest(unknown, _PARAMETERS)}")
    controls = {"denoise": denoise, "alpha_s": alpha_s, "alpha_i": alpha_i, "alpha_rgb": alpha_rgb}
    name = _model(service, model)
    settings = Settings(name, strength, exposure, _controls(service, name, controls))
    accept = request.headers.get("accept", "")
    answer_suffix(accept, ".png")  # refuse before the upload what could not be answered
    with service.gate.enter():
        try:
            data = await asyncio.wait_for(
                _unless_abandoned(service, read_picture(request, service.limits.bytes)), service.limits.seconds
            )
        except asyncio.TimeoutError:
            raise Refused(408, f"the upload took more than {service.limits.seconds:g} seconds") from None
        suffix = answer_suffix(accept, suffix_of(data))
        work = _unless_client_leaves(request, service.enhance(data, settings, suffix, quality))
        try:
            answer: Answer = await asyncio.wait_for(_unless_abandoned(service, work), service.limits.seconds)
        except asyncio.TimeoutError:
            raise busy(503, f"there was no result within {service.limits.seconds:g} seconds; try again later") from None
    headers = {NOTES: "; ".join(answer.notes)} if answer.notes else {}
    return Response(answer.content, media_type=media_types()[suffix], headers=headers)


@guarded.get("/models")
async def models(request: Request) -> list[Model]:
    """The networks of this server; the first is the default."""
    return [Model(**facts) for facts in described(request.app.state.service.models)]


@guarded.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(request.app.state.service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@public.get("/healthz", responses={503: {"description": "stopping, or a device is out of order"}})
async def healthz(request: Request) -> JSONResponse:
    """Whether this server accepts pictures."""
    service: Service = request.app.state.service
    if service.healthy:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "stopping" if service.gate.closed else "out of order"}, 503)


def _model(service: Service, wanted: str | None) -> str:
    names = list(service.models)
    if wanted is not None and wanted not in names:
        raise Refused(422, f"there is no model {wanted!r}; this server has {', '.join(names)}.{suggest(wanted, names)}")
    return wanted or names[0]


def _controls(service: Service, model: str, wanted: dict[str, float | None]) -> tuple[tuple[str, float], ...]:
    known = settable(service.models[model])
    given = sorted((name, value) for name, value in wanted.items() if value is not None)
    for name, _ in given:
        if name not in known:
            raise Refused(422, f"the model {model} has no {name}; its controls: {', '.join(known) or 'none'}")
    return tuple(given)


async def _unless_abandoned(service: Service, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`; 503 when the server stops before `work` is done."""
    return await _first(work, service.gate.abandoned.wait(), busy(503, "the server stopped; send the picture again"))


async def _unless_client_leaves(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, cancelled when the client closes the connection; the body must have been read."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return await _first(work, left(), ClientDisconnect())


async def _first(work: Coroutine[Any, Any, Any], end: Coroutine[Any, Any, Any], error: Exception) -> Any:
    """The result of `work`; raises `error` when `end` is done first. Whichever is not done is cancelled."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(end)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise error
    finally:
        for task in tasks:
            task.cancel()
