"""The token that clients must send, if the server has one."""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from llie.errors import UserError
from llie.server.limits import Refused

VARIABLE = "LLIE_TOKEN"

_header = HTTPBearer(auto_error=False, description="needed only if the server was started with a token")


def read_token(file: str | Path | None) -> str | None:
    """The token: the content of a file, or the environment variable `LLIE_TOKEN`; None if there is neither.

    Raises:
        UserError: the file cannot be read, or the token is empty or not ASCII.
    """
    if file is None:
        token, place = os.environ.get(VARIABLE), f"the environment variable {VARIABLE}"
    else:
        place = f"the token file {file}"
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {place}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    if token is not None and (not token or not token.isascii() or not token.isprintable()):
        raise UserError(f"{place} contains no token; write one line of ASCII characters into it")
    return token


async def check_token(
    request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_header)] = None
) -> None:
    """Check the token of a request, if the server has one.

    The comparison takes the same time for every wrong token, so that clients cannot guess it character by character.

    Raises:
        Refused: 401, the header `Authorization` contains no token, or a wrong one.
    """
    token: str | None = request.app.state.token
    if token is None:
        return
    if shown is None:
        raise Refused(
            401,
            "this server requires a token; send the header Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )
    if not hmac.compare_digest(shown.credentials.encode(), token.encode()):
        raise Refused(401, "the token is wrong", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
