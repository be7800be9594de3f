import hashlib
import io
import os
import sys

import pytest
import torch

from convrun.errors import CheckpointError, KeyProblem
from convrun.weights import download
from convrun.weights.checksums import digits_in
from convrun.weights.download import cached_path, downloaded, shown_url
from convrun.weights.sources import located


@pytest.fixture
def body():
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(20_000.0)}, buffer)
    return buffer.getvalue()


def files(folder):
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_fetched_once_and_kept(server, cache, body):
    server.answers["/w/tiny.pth"] = {"body": body}
    first = located(f"{server.url}/w/tiny.pth")
    assert (first.name, first.read_bytes()) == ("tiny.pth", body)
    assert located(f"{server.url}/w/tiny.pth") == first
    assert server.requests == [("GET", "/w/tiny.pth")]
    assert files(cache) == ["tiny.pth"]


def test_a_server_that_tells_no_length_is_read_to_the_end(server, cache, body):
    server.answers["/tiny.pth"] = {"body": body, "length": None}
    assert located(f"{server.url}/tiny.pth").read_bytes() == body


def test_equal_names_of_other_urls_do_not_meet(server, cache, body):
    server.answers |= {"/a/w.pth": {"body": body}, "/b/w.pth": {"body": body + b" "}}
    assert located(f"{server.url}/a/w.pth") != located(f"{server.url}/b/w.pth")


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_the_recipes_checksum_is_checked(server, cache, body, digits):
    server.answers |= {"/tiny.pth": {"body": body}, "/other/tiny.pth": {"body": body}}
    sha256 = hashlib.sha256(body).hexdigest()[:digits]
    assert located(f"{server.url}/tiny.pth", sha256.upper()).read_bytes() == body
    with pytest.raises(CheckpointError, match=r"tiny\.pth has the SHA-256 checksum .*, not 0{8}.*init\.sha256 is of"):
        located(f"{server.url}/other/tiny.pth", "0" * 8)
    assert files(cache) == ["tiny.pth"]


def test_the_checksum_in_a_files_name_is_checked(server, cache, body):
    right = f"/tiny-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    server.answers |= {right: {"body": body}, "/tiny-0000000a.pth": {"body": body}}
    located(server.url + right)
    with pytest.raises(CheckpointError, match=r"checksum .*, not 0000000a; the digits in its name"):
        located(f"{server.url}/tiny-0000000a.pth")
    assert files(cache) == [right[1:]]


def test_a_date_in_a_name_is_no_checksum():
    assert digits_in("model-20240131.pth") is None
    assert digits_in("model-983f1562.pth") == "983f1562"
    assert digits_in("model-983f15.pth") is None


@pytest.mark.parametrize("sha256", ["1234567", "0" * 65, "xyzxyzxyz", ""])
def test_what_is_no_checksum_is_refused(sha256):
    with pytest.raises(KeyProblem, match="is no SHA-256 checksum") as caught:
        located("any.pth", sha256)
    assert caught.value.key == "sha256"


def test_a_file_that_changed_on_the_server_is_fetched_anew_for_its_new_checksum(server, cache, body):
    server.answers["/tiny.pth"] = {"body": body}
    located(f"{server.url}/tiny.pth")
    server.answers["/tiny.pth"] = {"body": body + b" "}
    sha256 = hashlib.sha256(body + b" ").hexdigest()
    assert located(f"{server.url}/tiny.pth", sha256).read_bytes() == body + b" "
    assert len(files(cache)) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 404}, r"the server answers 404 \(Not Found\); check the address"),
        ({"status": 403}, r"the server answers 403 \(Forbidden\); check the network and https_proxy"),
        ({"status": 500}, r"the server answers 500"),
        ({"whole": False}, r"tiny\.pth(: the connection ended after [\d,]+ of [\d,]+ bytes| cannot be fetched)"),
        ({"pause": 5}, r"tiny\.pth cannot be fetched from 127\.0\.0\.1:\d+: timed out; check .* give its path"),
        ({"body": b"<html>log in</html>"}, r"what http://.*/tiny\.pth sent is no file of weights: it is a web page"),
        ({"body": b""}, "it is empty"),
    ],
    ids=["404", "403", "500", "short", "slow", "page", "empty"],
)
def test_what_goes_wrong_is_told_and_leaves_nothing_behind(server, cache, body, answer, message, monkeypatch):
    if "pause" in answer:
        monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
    server.answers["/tiny.pth"] = {"body": body} | answer
    with pytest.raises(CheckpointError, match=message):
        located(f"{server.url}/tiny.pth")
    assert files(cache) == []


def test_no_network_is_told(server, cache):
    server.close()
    with pytest.raises(
        CheckpointError, match=r"cannot be fetched from 127\.0\.0\.1:\d+: Connection refused; check the"
    ):
        located(f"{server.url}/tiny.pth")
    with pytest.raises(CheckpointError, match=r"cannot be fetched from no\.such\.host\.invalid: "):
        located("https://no.such.host.invalid/tiny.pth")
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        located("http://127.0.0.1:no-port/tiny.pth")
    assert files(cache) == []


def test_a_cached_file_needs_no_network(server, cache, body):
    server.answers["/tiny.pth"] = {"body": body}
    path = located(f"{server.url}/tiny.pth")
    server.close()
    assert located(f"{server.url}/tiny.pth", hashlib.sha256(body).hexdigest()) == path


def test_a_cache_that_cannot_be_written_is_told(server, tmp_path, monkeypatch, body):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVRUN_CACHE", str(tmp_path / "file" / "cache"))
    server.answers["/tiny.pth"] = {"body": body}
    with pytest.raises(CheckpointError, match=r"cache folder .*file/cache cannot be written: .*set CONVRUN_CACHE"):
        located(f"{server.url}/tiny.pth")


def test_an_interrupt_leaves_nothing_behind(server, cache, body, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    server.answers["/tiny.pth"] = {"body": body}
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        downloaded(f"{server.url}/tiny.pth")
    assert files(cache) == []


def test_secrets_of_a_url_are_not_shown(server, cache):
    assert shown_url("https://me:secret@host.org/a/b.pth?token=secret") == "https://host.org/a/b.pth"
    with pytest.raises(CheckpointError) as caught:
        located(f"{server.url}/none.pth?token=secret")
    assert "secret" not in str(caught.value)
    assert "secret" not in cached_path("https://me:secret@host.org/b.pth?token=secret").name


@pytest.mark.parametrize(
    ("path", "name"), [("/a/../..", "weights"), ("/", "weights"), ("/.hidden", "hidden"), ("/a%2F..%2Fb c", "b_c")]
)
def test_a_files_name_never_leaves_the_cache(cache, path, name):
    cached = cached_path(f"https://host.org{path}")
    assert cached.name == name
    assert cached.resolve().is_relative_to(cache.resolve())


def test_a_terminal_shows_a_bar(server, cache, body, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    server.answers["/tiny.pth"] = {"body": body}
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    located(f"{server.url}/tiny.pth")
    assert "tiny.pth" in sys.stderr.getvalue()
    assert "kB" in sys.stderr.getvalue()
