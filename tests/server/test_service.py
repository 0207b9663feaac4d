"""The other pages, the token, and many requests at once."""

import asyncio
import re

import httpx
import numpy as np
import pytest

from llie.data.decoding import decode
from llie.errors import UserError
from llie.server.access import read_token
from llie.server.app import create_app
from llie.server.limits import Limits
from llie.server.models import load_models
from tests.server.conftest import Brighten, Failing, Gated
from tests.server.test_enhance import PNG, dark, file_of


def test_models_and_health(client):
    one = client(Brighten(), Failing(KeyError()))
    assert one.get("/models").json() == [
        {
            **{"name": "first", "network": "Brighten", "default": True},
            "settings": ["strength", "exposure", "denoise"],
        },
        {
            **{"name": "second", "network": "Failing", "default": False},
            "settings": ["strength", "exposure"],
        },
    ]
    assert one.get("/healthz").json() == {"status": "ok"}


def test_metrics_count_every_answer(client):
    one = client()
    for content in (PNG, PNG, b"nothing"):
        one.post("/enhance", content=content)
    one.get("/made/up/by/a/client")
    text = one.get("/metrics").text
    assert 'llie_requests_total{path="/enhance",status="200"} 2.0' in text
    assert 'llie_requests_total{path="/enhance",status="415"} 1.0' in text
    assert 'llie_requests_total{path="other",status="404"} 1.0' in text and "made" not in text
    assert f"llie_pixels_total {2 * dark().shape[0] * dark().shape[1]}.0" in text
    assert "llie_batch_pictures_count 2.0" in text and "llie_in_flight 0.0" in text


def test_the_description_needs_no_other_host(client):
    one = client()
    page = one.get("/docs").text
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page)
    assert loaded and all(address.startswith("/") for address in loaded)
    assert all(one.get(address).status_code == 200 for address in loaded)
    described = one.get("/openapi.json").json()
    assert set(described["paths"]) == {"/enhance", "/models", "/metrics", "/healthz"}
    post = described["paths"]["/enhance"]["post"]
    assert set(post["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert set(post["responses"]) == {"200", "401", "406", "408", "413", "415", "422", "429", "500", "503"}
    assert {parameter["name"] for parameter in post["parameters"]} >= {"model", "strength", "exposure", "denoise"}


def test_token(client):
    one = client(token="s3cret")
    for headers in ({}, {"Authorization": "Basic czNjcmV0"}):
        answer = one.post("/enhance", content=PNG, headers=headers)
        assert answer.status_code == 401 and "requires a token" in answer.json()["error"]
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("s3cre", "s3crett", "Ã¤".encode("latin-1")):
        word = wrong if isinstance(wrong, bytes) else wrong.encode()
        answer = one.post("/enhance", content=PNG, headers={"Authorization": b"Bearer " + word})
        assert (answer.status_code, answer.json()) == (401, {"error": "the token is wrong"})
    right = {"Authorization": "Bearer s3cret"}
    assert one.post("/enhance", content=PNG, headers=right).status_code == 200
    for path, open_to_all in {"/models": False, "/metrics": False, "/healthz": True, "/openapi.json": True}.items():
        assert one.get(path).status_code == (200 if open_to_all else 401)
        assert one.get(path, headers=right).status_code == 200


def test_where_the_token_comes_from(tmp_path, monkeypatch):
    monkeypatch.delenv("LLIE_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("LLIE_TOKEN", "from the environment")
    assert read_token(None) == "from the environment"
    (tmp_path / "token").write_text("from a file\n")
    assert read_token(tmp_path / "token") == "from a file"
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match="empty contains no token"):
        read_token(tmp_path / "empty")
    with pytest.raises(UserError, match=r"cannot read the token file .*absent: No such file"):
        read_token(tmp_path / "absent")
    monkeypatch.setenv("LLIE_TOKEN", "")
    with pytest.raises(UserError, match="LLIE_TOKEN contains no token"):
        read_token(None)


def together(service, act):
    """Run `act(client)` against the service, in one event loop, without a network."""

    async def run():
        service.start()
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None) as client:
            try:
                return await act(client)
            finally:
                service.close()

    return asyncio.run(run())


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_full_queue_refuses_and_what_was_accepted_is_answered(service):
    network = Gated()
    one = service(network, queue=2)

    async def act(client):
        accepted = [asyncio.ensure_future(client.post("/enhance", content=PNG)) for _ in range(2)]
        await until(lambda: one.gate.in_flight == 2)
        refused = await client.post("/enhance", content=PNG)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"].startswith("2 requests are waiting, the limit")
        assert (await client.get("/healthz")).status_code == 200
        network.opened.set()
        return await asyncio.gather(*accepted)

    for answer in together(one, act):
        assert answer.status_code == 200
        assert np.array_equal(decode(answer.content, "a").pixels, dark() * 2)
    assert one.gate.in_flight == 0


def test_equal_sizes_are_one_batch(service):
    """While the device is busy, others gather; a batch holds no other size and no other settings."""
    network = Gated()
    one = service(network, batch=4)
    wide = file_of(dark(12, 24))

    async def act(client):
        first = asyncio.ensure_future(client.post("/enhance", content=PNG))
        await until(network.entered.is_set)
        rest = []
        for content, query in [*[(PNG, "")] * 5, (wide, ""), (PNG, "?strength=0.5")]:
            rest.append(asyncio.ensure_future(client.post("/enhance" + query, content=content)))
            await until(lambda: len(one._jobs._jobs) == len(rest))
        network.opened.set()
        return await asyncio.gather(first, *rest)

    answers = together(one, act)
    assert [answer.status_code for answer in answers] == [200] * 8
    assert network.batches == [1, 4, 1, 1, 1]
    for answer in answers[:6]:
        assert np.array_equal(decode(answer.content, "a").pixels, dark() * 2)
    assert np.array_equal(decode(answers[6].content, "a").pixels, dark(12, 24) * 2)


def test_several_devices_share_the_queue(service):
    network = Gated()
    one = service(network, devices=2, batch=1)

    async def act(client):
        work = [asyncio.ensure_future(client.post("/enhance", content=PNG)) for _ in range(4)]
        await until(lambda: len(network.batches) == 2)  # both are at work, while neither has ended
        network.opened.set()
        return await asyncio.gather(*work)

    assert [answer.status_code for answer in together(one, act)] == [200] * 4
    assert network.batches == [1] * 4


def test_what_takes_too_long_is_given_up(service):
    network = Gated()
    one = service(network)

    async def upload():
        yield PNG
        one.limits = Limits(seconds=0.05)  # from here on: the upload itself may take its time

    async def act(client):
        answer = await client.post("/enhance", content=upload())
        assert one.gate.in_flight == 0
        network.opened.set()
        return answer

    answer = together(one, act)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert answer.json() == {"error": "there was no result within 0.05 seconds; try again later"}


def test_a_slow_upload_is_given_up(service):
    one = service(seconds=0.05)

    async def slow():
        yield PNG[:10]
        await until(lambda: one.gate.in_flight == 0)

    answer = together(one, lambda client: client.post("/enhance", content=slow()))
    assert (answer.status_code, answer.json()) == (408, {"error": "the upload took more than 0.05 seconds"})


def test_a_client_that_leaves_costs_no_more_work(service):
    """Its picture still waits for the device, and is never enhanced."""
    network = Gated()
    one = service(network, batch=1)

    async def act(client):
        first = asyncio.ensure_future(client.post("/enhance", content=PNG))
        await until(network.entered.is_set)
        left = asyncio.Event()
        messages = iter([{"type": "http.request", "body": PNG, "more_body": False}])

        async def receive():
            message = next(messages, None)
            if message is None:
                await left.wait()
            return message or {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError("nobody is there")

        scope = {"type": "http", "method": "POST", "path": "/enhance", "query_string": b"", "headers": []}
        second = asyncio.ensure_future(create_app(one)({**scope, "http_version": "1.1"}, receive, send))
        await until(lambda: len(one._jobs._jobs) == 1)
        left.set()
        await second
        assert one.gate.in_flight == 1
        network.opened.set()
        return await first

    assert together(one, act).status_code == 200
    assert network.batches == [1]
    assert b'llie_requests_total{path="/enhance",status="499"} 1.0' in one.metrics.text()


def test_while_it_stops_new_requests_are_refused(service):
    network = Gated()
    one = service(network)

    async def act(client):
        accepted = asyncio.ensure_future(client.post("/enhance", content=PNG))
        await until(network.entered.is_set)
        one.gate.closed = True
        refused = await client.post("/enhance", content=PNG)
        assert (refused.status_code, refused.json()["error"]) == (503, "the server is stopping; send the picture again")
        health = await client.get("/healthz")
        assert (health.status_code, health.json()) == (503, {"status": "stopping"})
        network.opened.set()
        return await accepted

    assert together(one, act).status_code == 200


def test_early_answers_come_after_the_upload_was_read(service):
    """A client that sends without looking gets its answer, and not a broken connection."""
    sent = []

    async def upload(pieces):
        sent.clear()
        for _ in range(pieces):
            sent.append(1)
            yield bytes(100)

    one = service(bytes=250)
    assert together(one, lambda client: client.post("/enhance", content=upload(5))).status_code == 413
    assert len(sent) == 5
    assert together(service(bytes=250), lambda client: client.post("/enhance", content=upload(100))).status_code == 413
    assert len(sent) < 10, "but no more than an upload may have"


def test_models_have_names():
    loaded = load_models(["clahe", "mine=clahe"], ["cpu"])
    assert [list(models) for models in loaded] == [["clahe", "mine"]]
    with pytest.raises(UserError, match="two networks would be called 'clahe'; name one yourself"):
        load_models(["clahe", "clahe"], ["cpu"])
    with pytest.raises(UserError, match="no device 'abacus'"):
        load_models(["clahe"], ["abacus"])
