"""The HTTP application: routes, errors as JSON, and a description page that loads nothing from other hosts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from llie import __version__
from llie.server.edge import Edge
from llie.server.limits import Refused
from llie.server.routes import guarded, public
from llie.server.service import Service

_PATHS = frozenset({"/enhance", "/models", "/metrics", "/healthz"})


def create_app(service: Service, token: str | None = None) -> FastAPI:
    """The application around a service.

    Args:
        service: carries out the requests; it starts and ends with the application.
        token: what clients must send, or None.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app: FastAPI = FastAPIOffline(  # its page /docs loads nothing from another host
        title="llie", version=__version__, summary="Enhances photographs that are too dark.", redoc_url=None,
        lifespan=lifespan, separate_input_output_schemas=False,
    )  # fmt: skip
    app.state.service, app.state.token = service, token
    app.include_router(guarded)
    app.include_router(public)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_middleware(Edge, metrics=service.metrics, paths=_PATHS, limits=service.limits)
    return app


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.message}, error.status, error.headers)


def _no_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    text = {
        404: f"there is no {request.url.path}; /docs lists all paths",
        405: f"{place} is not possible",
    }
    return JSONResponse({"error": text.get(error.status_code, error.detail)}, error.status_code, error.headers)


def _wrong_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    texts = [f"{found['loc'][-1]}: {found['msg'][0].lower()}{found['msg'][1:]}" for found in error.errors()]
    return JSONResponse({"error": "; ".join(texts)}, 422)
