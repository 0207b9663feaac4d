"""Image formats: which one an upload has, and which one its answer gets."""

from __future__ import annotations

from llie.data.formats import image_format, missing_package
from llie.server.limits import Refused

# Format of the upload -> ending of the format of the answer.
_WRITTEN_FOR = {
    **{"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "AVIF": ".avif", "HEIC": ".heic"},
    **{"GIF": ".png", "camera raw": ".jpg"},
}
_TYPE_OF = {
    **{".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".tif": "image/tiff", ".bmp": "image/bmp"},
    **{".avif": "image/avif", ".heic": "image/heic"},
}
_NEEDS = {"HEIC": ".heic", "camera raw": ".cr2"}  # formats that need a package -> an ending of such files


def media_types() -> dict[str, str]:
    """The formats that this server can write: ending -> media type."""
    return {suffix: kind for suffix, kind in _TYPE_OF.items() if missing_package(suffix) is None}


def suffix_of(data: bytes) -> str:
    """The ending of the upload's own format, found from its first bytes; PNG stands for GIF, JPEG for camera raw.

    Raises:
        Refused: 415, it is not an image, or this server does not read its format.
    """
    found = image_format(data)
    if found not in _WRITTEN_FOR:
        raise Refused(415, f"the upload is not an image of a format that this server reads ({', '.join(_WRITTEN_FOR)})")
    package = missing_package(_NEEDS.get(found, ""))
    if package:
        raise Refused(415, f"this server does not read {found} (it lacks the package {package}); send a JPEG or PNG")
    return _WRITTEN_FOR[found]


def answer_suffix(accept: str, own: str) -> str:
    """The ending of the format that a client prefers according to its header `Accept` (RFC 9110).

    Args:
        accept: the header; empty if there is none.
        own: ending of the upload's format, which is chosen among formats of equal weight.

    Raises:
        Refused: 406, this server writes none of the formats that the client accepts.
    """
    known = media_types()
    wishes = _wishes(accept or "*/*")
    rank = {suffix: wishes.get(kind, wishes.get("image/*", wishes.get("*/*", 0.0))) for suffix, kind in known.items()}
    best = max(sorted(rank, key=lambda suffix: suffix != own), key=lambda suffix: rank[suffix])
    if rank[best] <= 0:
        raise Refused(406, f"Accept: {accept} names no format that this server writes ({', '.join(known.values())})")
    return best


def _wishes(accept: str) -> dict[str, float]:
    """The weights in a header `Accept`: media type or range -> weight."""
    wishes = {}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            wishes["image/jpeg" if kind == "image/jpg" else kind] = float(weight)
        except ValueError:
            raise Refused(406, f"Accept: cannot read {part.strip()!r}") from None
    return wishes
