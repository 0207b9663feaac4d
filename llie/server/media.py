"""Formats on the wire: what an upload really is, and what its answer is to be."""

from __future__ import annotations

from llie.data.formats import image_format, missing_package
from llie.server.limits import Refused

# Formats that are read -> the ending of what is written for them.
_WRITTEN_FOR = {
    **{"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "AVIF": ".avif", "HEIC": ".heic"},
    **{"GIF": ".png", "camera raw": ".jpg"},
}
_TYPE_OF = {
    **{".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".tif": "image/tiff", ".bmp": "image/bmp"},
    **{".avif": "image/avif", ".heic": "image/heic"},
}
_NEEDS = {"HEIC": ".heic", "camera raw": ".cr2"}  # endings of files that need a package


def media_types() -> dict[str, str]:
    """What this server can answer with: ending -> media type."""
    return {suffix: kind for suffix, kind in _TYPE_OF.items() if missing_package(suffix) is None}


def suffix_of(data: bytes) -> str:
    """The ending of the answer in the upload's own format, which its first bytes tell; PNG for GIF, JPEG for raw.

    Raises:
        Refused: 415, it is no image, or of a format that this server does not read.
    """
    found = image_format(data)
    if found not in _WRITTEN_FOR:
        raise Refused(415, f"the upload is no image that this server reads ({', '.join(_WRITTEN_FOR)})")
    package = missing_package(_NEEDS.get(found, ""))
    if package:
        raise Refused(415, f"this server does not read {found} (it lacks the package {package}); send a JPEG or PNG")
    return _WRITTEN_FOR[found]


def answer_suffix(accept: str, own: str) -> str:
    """The ending of the format that a client prefers, as RFC 9110 reads its header `Accept`.

    Args:
        accept: the header; empty if there is none.
        own: the ending of the upload's format, which wins among equals.

    Raises:
        Refused: 406, none of those that the client takes can be written.
    """
    known = media_types()
    wishes = _wishes(accept or "*/*")
    rank = {suffix: wishes.get(kind, wishes.get("image/*", wishes.get("*/*", 0.0))) for suffix, kind in known.items()}
    best = max(sorted(rank, key=lambda suffix: suffix != own), key=lambda suffix: rank[suffix])
    if rank[best] <= 0:
        raise Refused(406, f"Accept: {accept} names no format that this server writes ({', '.join(known.values())})")
    return best


def _wishes(accept: str) -> dict[str, float]:
    """Media type or range -> weight."""
    wishes = {}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            wishes["image/jpeg" if kind == "image/jpg" else kind] = float(weight)
        except ValueError:
            raise Refused(406, f"Accept: cannot read {part.strip()!r}") from None
    return wishes
