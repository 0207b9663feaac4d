"""Backbones over the network: from this machine's own loopback, so that the tests stay offline."""

import hashlib
import http.server
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from llie.errors import UserError
from llie.losses import backbones
from llie.weights import NotFetched, fetch


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch hub; the network may be used."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LLIE_WEIGHTS", raising=False)
    monkeypatch.delenv("LLIE_OFFLINE")
    return tmp_path / "cache" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Torchvision's server with one small file as VGG19; `requests` collects what is asked for."""
    buffer = io.BytesIO()
    torch.save({"features.0.bias": torch.arange(4.0)}, buffer)
    content = buffer.getvalue()
    monkeypatch.setitem(backbones.FILES, "vgg19", f"vgg19-{hashlib.sha256(content).hexdigest()[:8]}.pth")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            known = self.path in (f"/models/{backbones.FILES['vgg19']}", "/models/vgg19-00000000.pth")
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests = []
    monkeypatch.setattr(backbones, "URL", f"http://127.0.0.1:{server.server_port}/models/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_downloaded_once_into_torch_hubs_cache(cache, server):
    for _ in range(2):
        assert backbones.backbone_state("vgg19", None, "a loss")["features.0.bias"].tolist() == [0, 1, 2, 3]
    assert server.requests == [f"/models/{backbones.FILES['vgg19']}"]
    assert (cache / backbones.FILES["vgg19"]).is_file()


def test_of_many_processes_one_downloads(cache, server):
    """Threads stand for processes: each call opens the lock anew."""
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: backbones.backbone_state("vgg19", None, "a loss"), range(8)))
    assert all(state["features.0.bias"].tolist() == [0, 1, 2, 3] for state in states)
    assert len(server.requests) == 1


def test_a_damaged_download_is_not_kept(cache, server, monkeypatch):
    monkeypatch.setitem(backbones.FILES, "vgg19", "vgg19-00000000.pth")
    with pytest.raises(UserError, match=r"vgg19-00000000\.pth \(SHA-256 begins with 00000000\).*invalid hash value"):
        backbones.backbone_state("vgg19", None, "a loss")
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_nothing_is_asked_for(cache, server, monkeypatch, value):
    monkeypatch.setenv("LLIE_OFFLINE", value)
    with pytest.raises(UserError, match=r"a loss needs .*checkpoints.*LLIE_WEIGHTS.*'weights' \(LLIE_OFFLINE is set"):
        backbones.backbone_state("vgg19", None, "a loss")
    assert server.requests == []


def test_without_an_answer_the_message_says_what_to_put_where(cache, server):
    for _ in range(2):  # asked for once: a validation must not wait again and again
        with pytest.raises(UserError, match=r"alexnet-owt-7be5be79\.pth.*checkpoints.*LLIE_WEIGHTS.*Not Found"):
            backbones.backbone_state("alexnet", None, "LPIPS")
    assert len(server.requests) == 1
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"could not be downloaded: .*refused"):
        backbones.backbone_state("vgg16", None, "LPIPS")


def test_a_cache_that_cannot_be_written_is_named(cache, server):
    cache.parent.parent.write_text("a file is in the way")
    with pytest.raises(NotFetched, match="cache"):
        fetch(backbones.URL + backbones.FILES["vgg19"])


def test_the_users_file_is_used_first(cache, server, tmp_path):
    torch.save({"own": torch.zeros(1)}, tmp_path / "own.pth")
    assert list(backbones.backbone_state("vgg19", tmp_path / "own.pth", "a loss")) == ["own"]
    assert server.requests == []
