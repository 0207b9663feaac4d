"""Reads the picture in the body of a request, which is the picture itself or a form with one file.

Nothing is written to the disk, and no more than the limit is read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from llie.server.limits import Refused

_FORM = "multipart/form-data"
_FORM_HEADERS = 2**16  # bytes that a form may contain besides its file


async def read_picture(request: Request, limit: int) -> bytes:
    """The bytes of the picture.

    Args:
        request: its body is an image, or a form (`multipart/form-data`) with one file.
        limit: largest size of the picture, in bytes.

    Raises:
        Refused: the picture is larger (413) or of another type (415), or the body is empty or a damaged form (422).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        data = await _file_of_form(request, limit)
    elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
        data = b"".join([chunk async for chunk in _limited(request, limit, limit)])
    else:
        raise Refused(
            415, f"the Content-Type is {kind}; send the picture as image/jpeg, image/png ..., or as the file of a form"
        )
    if not data:
        raise Refused(422, "the upload is empty; send a picture as the body, or as the file of a form")
    return data


async def _file_of_form(request: Request, limit: int) -> bytes:
    parser = MultiPartParser(
        request.headers, _limited(request, limit + _FORM_HEADERS, limit), max_files=1, max_fields=0
    )
    parser.spool_max_size = limit + _FORM_HEADERS  # kept in memory: the file system may be read-only
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(
            422, f"the form cannot be read ({error.message}); send one file, and parameters in the address"
        ) from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        data = await files[0].read() if files else b""
    finally:
        await form.close()
    if len(data) > limit:
        raise _too_large(limit)
    return data


async def _limited(request: Request, most: int, limit: int) -> AsyncGenerator[bytes, None]:
    """The body in pieces.

    Raises:
        Refused: it has more than `most` bytes; the message names `limit`.
    """
    if int(request.headers.get("content-length") or 0) > most:
        raise _too_large(limit)
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the upload has more than {limit} bytes, the limit of this server; send a smaller file")
