import hashlib

import huggingface_hub
import pytest
import torch
from safetensors.torch import save

from convrun.errors import CheckpointError
from convrun.weights.sources import is_local, located, name_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BODY = save({"a": torch.ones(3)})


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """A server that answers as the hub does, and an empty cache of the hub's library."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def serve(repository, file=None, body=BODY):
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        for name in ("model.safetensors", "pytorch_model.bin"):
            missing = {"status": 404, "headers": {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}}
            server.answers[f"/{repository}/resolve/main/{name}"] = (
                {"body": body, "headers": headers} if name == file else missing
            )

    server.serve = serve
    return server


def test_a_path_may_begin_at_home_or_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for written in (str(tmp_path / "w.pth"), "~/w.pth", "w.pth", "./w.pth"):
        assert located(written).samefile(tmp_path / "w.pth")


def test_a_files_checksum_is_checked(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    located(str(tmp_path / "w.pth"), hashlib.sha256(b"weights").hexdigest()[:10])
    with pytest.raises(CheckpointError, match=r"w\.pth has the SHA-256 checksum .*init\.sha256 is of another file"):
        located(str(tmp_path / "w.pth"), "0" * 64)


@pytest.mark.parametrize(
    ("from_", "message"),
    [
        ("none.pth", "there is no file none.pth .*a path, a URL, timm:NAME or hf:OWNER/NAME"),
        ("s3://bucket/w.pth", "convrun reads files, http.s. URLs, timm:NAME"),
    ],
)
def test_a_file_that_is_not_there_is_told(from_, message):
    with pytest.raises(CheckpointError, match=message):
        located(from_)


def test_a_folder_is_told_with_the_files_in_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"is a folder; give a file$"):
        located(str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a folder; give a file in it, such as weights/best\.safetensors"):
        located(str(tmp_path))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_of_the_hub_is_fetched_once(hub, file):
    hub.serve("me/convnext", file)
    path = located("hf:me/convnext")
    assert path.read_bytes() == BODY
    hub.close()
    assert located("hf:me/convnext") == path
    assert located("hf:me/convnext", hashlib.sha256(BODY).hexdigest()[:8]) == path
    with pytest.raises(CheckpointError, match="hf:me/convnext has the SHA-256 checksum"):
        located("hf:me/convnext", "0" * 8)


def test_what_the_hub_does_not_have_is_told(hub):
    hub.serve("me/empty")
    with pytest.raises(CheckpointError, match=r"hf:me/empty holds neither model.safetensors nor pytorch_model.bin"):
        located("hf:me/empty")
    hub.answers["/me/none/resolve/main/model.safetensors"] = {
        "status": 404,
        "headers": {"X-Error-Code": "RepoNotFound"},
    }
    with pytest.raises(CheckpointError, match=r"no such repository that is open to you; check the name.*hf auth login"):
        located("hf:me/none")
    for name in ("hf:a/b/c", "hf:", "hf:--"):
        with pytest.raises(CheckpointError, match="names no repository of the hub; write hf:OWNER/NAME"):
            located(name)


def test_a_hub_out_of_reach_is_told(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda _: None)  # its library tries six times
    hub.close()
    with pytest.raises(CheckpointError, match=r"hf:me/x is not in the hub's cache .*refused.*give its path") as caught:
        located("hf:me/x")
    assert "\n" not in str(caught.value)


def test_a_hub_turned_off_is_told(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"hf:me/x is not in the hub's cache .*HF_HUB_OFFLINE"):
        located("hf:me/x")


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("convnext_tiny.fb_in22k", "timm/convnext_tiny.fb_in22k"),
        ("convnextv2_tiny.fcmae", "timm/convnextv2_tiny.fcmae"),
    ],
)
def test_timms_weights_come_from_its_repositories(hub, name, repository):
    hub.serve(repository, "model.safetensors")
    assert located(f"timm:{name}").read_bytes() == BODY


def test_timms_weights_that_are_on_no_hub_come_from_their_url(hub, cache, monkeypatch):
    import timm

    facts = timm.models.get_pretrained_cfg("gcvit_tiny.in1k")
    hub.answers["/gcvit.safetensors"] = {"body": BODY}
    facts.hf_hub_id, facts.url = None, f"{hub.url}/gcvit.safetensors"
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda _: facts)
    assert located("timm:gcvit_tiny.in1k").is_relative_to(cache)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnext_tiny.fb_in22", "did you mean .*timm:convnext_tiny.fb_in22k"),
        ("convnext_tiny.nonsense_tag", "did you mean timm:convnext_tiny"),
        ("convnext_tin", "did you mean"),
        ("qqqq", "timm.list_pretrained.. lists"),
    ],
)
def test_weights_timm_does_not_have_are_told(name, message):
    with pytest.raises(CheckpointError, match=f"timm has no pretrained weights '{name}'; .*{message}"):
        located(f"timm:{name}")


def test_names_and_places():
    assert [is_local(f) for f in ("a/b.pth", "C:b.pth", "~/x", "http://h/x", "https://h/x", "timm:x", "hf:a/b")] == [
        True, True, True, False, False, False, False]  # fmt: skip
    assert name_of("/a/b.pth") == "b.pth"
    assert name_of("https://h.org/a/b.pth?x=1") == "b.pth"
    assert name_of("timm:convnext_tiny") == "timm:convnext_tiny"
