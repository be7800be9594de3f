import contextlib
import http.server
import threading
import time

import pytest
import torch

from convrun.registry import registry

SHAPE = {"depths": (2, 1, 3, 1), "dims": (8, 16, 24, 32)}


def lively(model, seed=0):
    """All weights random, so that no tensor can be swapped for another, and every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
    return model.eval()


@pytest.fixture
def build():
    """A small ConvNeXt of convrun's, all weights random."""

    def build(num_classes=5, seed=0, **keys):
        name = keys.pop("name", "convnext")
        shape = SHAPE if name == "convnext" else {}
        return lively(registry.find("model", name).create(num_classes, **{**shape, **keys}), seed)

    return build


@pytest.fixture
def enliven():
    return lively


@pytest.fixture
def logits():
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def logits(model):
        with torch.no_grad():
            out = model.eval()(images)
        return getattr(out, "logits", out)

    return logits


class Server:
    """A server on this machine whose answers a test chooses by path."""

    def __init__(self):
        self.answers, self.requests = {}, []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(is_head=True)

            def do_GET(self):
                self.answer()

            def answer(self, is_head=False):
                server.requests.append((self.command, self.path))
                path = self.path.partition("?")[0]
                answer = server.answers.get(path, {"status": 404})
                body = answer.get("body", b"")
                self.send_response(answer.get("status", 200))
                length = answer.get("length", len(body))
                if length is not None:
                    self.send_header("Content-Length", str(length))
                for name, value in answer.get("headers", {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if is_head:
                    return
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                time.sleep(answer.get("pause", 0))
                if answer.get("whole", True):
                    with contextlib.suppress(ConnectionError):  # the client may have given up
                        self.wfile.write(body[len(body) // 2 :])

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder; its files are what `list` finds."""
    monkeypatch.setenv("CONVRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
