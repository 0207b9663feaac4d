"""POST /enhance: the answer is what `llie enhance` would write; each mistake has its status and one message."""

import io
import logging

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from llie.data.decoding import decode
from llie.errors import UserError
from llie.inference import Enhancer
from llie.inference.photo import decode_photo
from llie.server import media
from llie.server.routes import NOTES
from tests.data.photographs import encoded, in_mode
from tests.server.conftest import Brighten, Failing


def dark(height=12, width=20, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max // 3, (height, width, 3), dtype=dtype)


def file_of(image: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, image[..., ::-1])[1].tobytes()


PNG = file_of(dark())


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("TIFF", ".tif"), ("BMP", ".bmp"), ("AVIF", ".avif")],
)
def test_the_answer_is_the_file_that_the_command_writes(client, tmp_path, kind, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = io.BytesIO()
    extra = {} if kind == "BMP" else {"exif": exif.tobytes(), "icc_profile": profile}
    Image.fromarray(dark()).save(content, kind, **extra)
    photo = decode_photo(content.getvalue(), "a")
    photo.save(Enhancer(Brighten(), "cpu")(photo.pixels), tmp_path / f"a{suffix}")
    answer = client().post("/enhance", content=content.getvalue())
    assert (answer.status_code, answer.headers["content-type"]) == (200, media.media_types()[suffix])
    assert answer.content == (tmp_path / f"a{suffix}").read_bytes()
    if extra:
        assert Image.open(io.BytesIO(answer.content)).getexif()[ExifTags.Base.Make] == "Camera"


def test_depth_and_transparency_are_kept(client):
    deep = decode(client().post("/enhance", content=file_of(dark(dtype=np.uint16))).content, "a").pixels
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, np.minimum(dark(dtype=np.uint16).astype(int) * 2, 65535))
    source = encoded(in_mode("RGBA"), "PNG")
    answer = decode(client().post("/enhance", content=source).content, "a")
    assert np.array_equal(answer.alpha, decode(source, "a").alpha)
    lost = client().post("/enhance", content=source, headers={"Accept": "image/jpeg"})
    assert lost.headers[NOTES] == "transparency was dropped, .jpg has none (the format png keeps it)"


def test_a_form_is_understood(client):
    answer = client().post("/enhance", files={"file": ("whatever.txt", PNG, "text/plain")})
    assert answer.status_code == 200
    assert answer.content == client().post("/enhance", content=PNG, headers={"Content-Type": "image/png"}).content


def test_the_content_decides_the_format(client):
    answer = client().post("/enhance", content=PNG, headers={"Content-Type": "image/jpeg"})
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/jpg", "image/jpeg"),
        ("image/webp, image/jpeg;q=0.9", "image/webp"),
        ("image/webp;q=0.2, IMAGE/JPEG; q=0.9, */*;q=0.1", "image/jpeg"),
        ("image/jpeg, image/png", "image/png"),
        ("text/html, image/*;q=0.5, image/png;q=0, image/bmp;q=0.6", "image/bmp"),
    ],
)
def test_accept_chooses_the_format(client, accept, kind):
    answer = client().post("/enhance", content=PNG, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert Image.open(io.BytesIO(answer.content)).get_format_mimetype() == kind


def test_settings_reach_the_network(client):
    one = client(Brighten(), Failing(UserError("not this one")))
    image = decode(one.post("/enhance?strength=0", content=PNG).content, "a").pixels
    assert np.array_equal(image, dark())
    words = {"strength": 0.5, "exposure": 1, "denoise": 0.5, "model": "first"}
    image = decode(one.post("/enhance", params=words, content=PNG).content, "a").pixels
    assert np.array_equal(image, Enhancer(Brighten(), "cpu", {"denoise": 0.5}, strength=0.5, exposure=1)(dark()))
    assert one.post("/enhance?model=second", content=PNG).json() == {"error": "not this one"}
    rough = one.post("/enhance?quality=5", content=PNG, headers={"Accept": "image/jpeg"})
    fine = one.post("/enhance?quality=100", content=PNG, headers={"Accept": "image/jpeg"})
    assert len(rough.content) < len(fine.content)


def huge() -> bytes:
    """The header of a PNG file that says it unpacks to ten gigabytes; unpacking it would fail in another way."""
    data = bytearray(PNG)
    data[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("address", "content", "headers", "status", "message"),
    [
        ("/enhance", b"", {}, 422, "the upload is empty"),
        ("/enhance", b"no image at all, however long", {}, 415, "format that this server reads (PNG, JPEG,"),
        ("/enhance", b"\x93NUMPY\x01\x00", {}, 415, "not an image"),
        ("/enhance", PNG, {"Content-Type": "application/json"}, 415, "the Content-Type is application/json"),
        ("/enhance", PNG[:-30], {}, 422, "the picture is a damaged or truncated PNG file"),
        ("/enhance", b"\xff\xd8\xff nothing more", {}, 422, "damaged or truncated JPEG"),
        ("/enhance", huge(), {}, 413, "the picture has 60000x60000 pixels, more than the limit of 50000000"),
        ("/enhance", PNG, {"Accept": "text/html"}, 406, "Accept: text/html names no format"),
        ("/enhance", PNG, {"Accept": "image/png;q=x"}, 406, "cannot read 'image/png;q=x'"),
        ("/enhance?strength=2", PNG, {}, 422, "strength: input should be less than or equal to 1"),
        ("/enhance?strength=nan", PNG, {}, 422, "strength: "),
        ("/enhance?exposure=inf", PNG, {}, 422, "exposure: "),
        ("/enhance?quality=0", PNG, {}, 422, "quality: "),
        ("/enhance?strenght=1", PNG, {}, 422, "no parameter 'strenght'. Did you mean 'strength'?"),
        ("/enhance?size=100000", PNG, {}, 422, "no parameter 'size'"),
        ("/enhance?alpha_s=1", PNG, {}, 422, "the model first has no alpha_s; its controls: denoise"),
        ("/enhance?model=frist", PNG, {}, 422, "no model 'frist'; this server has first. Did you mean 'first'?"),
        ("/enhance?model=/etc/passwd", PNG, {}, 422, "no model '/etc/passwd'; this server has first."),
        ("/enhanced", PNG, {}, 404, "there is no /enhanced; /docs lists all paths"),
    ],
)
def test_mistakes(client, address, content, headers, status, message):
    answer = client().post(address, content=content, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"] and message in answer.json()["error"]


def test_wrong_forms(client):
    one = client()
    two = one.post("/enhance", files=[("a", ("a.png", PNG)), ("b", ("b.png", PNG))])
    assert two.status_code == 422 and "the form cannot be read (Too many files" in two.json()["error"]
    field = one.post("/enhance", files={"file": ("a.png", PNG)}, data={"strength": "1"})
    assert field.status_code == 422 and "parameters in the address" in field.json()["error"]
    broken = one.post("/enhance", content=PNG, headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 422
    assert one.post("/enhance", files={"file": ("a.png", b"")}).status_code == 422


def test_uploads_are_limited(client):
    one = client(bytes=len(PNG))
    assert one.post("/enhance", content=PNG).status_code == 200
    for answer in (
        one.post("/enhance", content=PNG + b"x"),
        one.post("/enhance", content=iter([PNG, b"x"])),  # in chunks, whose sum nobody announces
        one.post("/enhance", files={"file": PNG + b"x"}),
        one.post("/enhance", files={"file": PNG + bytes(2**17)}),
    ):
        assert answer.status_code == 413
        assert answer.json() == {
            "error": f"the upload has more than {len(PNG)} bytes, the limit of this server; send a smaller file"
        }


def test_no_more_pixels_than_the_limit(client):
    assert client(pixels=12 * 20).post("/enhance", content=PNG).status_code == 200
    assert client(pixels=12 * 20 - 1).post("/enhance", content=PNG).status_code == 413


def test_errors_in_the_server_are_logged_and_tell_the_client_nothing(client, caplog):
    one = client(Failing(KeyError("secret of the network")))
    with caplog.at_level(logging.ERROR, "llie.server"):
        answer = one.post("/enhance", content=PNG)
    assert answer.status_code == 500
    text = answer.json()["error"]
    assert text.startswith("the server failed at this request; its log has the reason under the number ")
    number = text.split()[-1]
    assert "secret" not in text
    assert number in caplog.text and "secret of the network" in caplog.text
    assert one.get("/healthz").status_code == 200


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] not enough memory: tried to allocate")])
def test_too_little_memory_is_said(client, error):
    answer = client(Failing(error)).post("/enhance", content=PNG)
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "the server has too little memory for the picture; make it smaller",
    )


def test_formats_that_need_a_package(client, monkeypatch):
    monkeypatch.setattr(media, "missing_package", lambda suffix: {".heic": "pillow-heif", ".cr2": "rawpy"}.get(suffix))
    answer = client().post("/enhance", content=b"\0\0\0\x18ftypheic" + bytes(8))
    assert answer.status_code == 415 and "lacks the package pillow-heif" in answer.json()["error"]
    answer = client().post("/enhance", content=PNG, headers={"Accept": "image/heic"})
    assert answer.status_code == 406
