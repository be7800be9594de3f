import json
import subprocess
from pathlib import Path

import pytest

from convrun.run_folder import RunFolder
from convrun.run_folder.environment import add_start, allowed_before, version_changes


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def starts(folder):
    return folder.read_json("environment.json")["starts"]


def at_the_start_before(folder, **versions):
    """As if the last start had run with these versions."""
    content = folder.read_json("environment.json")
    content["starts"][-1]["versions"] |= versions
    (folder.path / "environment.json").write_text(json.dumps(content))


def test_every_start_is_added(folder):
    add_start(folder, "CPU", [], 0)
    add_start(folder, "CPU", [("optimizer.lr", 1e-3, 2e-3)], 7)
    assert [start["from_step"] for start in starts(folder)] == [0, 7]
    assert starts(folder)[1]["allowed_changes"] == [{"key": "optimizer.lr", "before": 1e-3, "after": 2e-3}]


@pytest.mark.parametrize(
    "damaged", ["{", "[]", "null", '{"starts": 3}', '{"starts": [1, null]}', "\x00", '{"starts": [{}]}']
)
def test_a_damaged_file_is_begun_anew(damaged, folder):
    (folder.path / "environment.json").write_text(damaged)
    assert add_start(folder, "CPU", [], 5) == ""
    assert starts(folder)[-1]["from_step"] == 5


def test_changes_that_were_allowed_are_known_by_key(folder):
    add_start(folder, "CPU", [], 0)
    assert allowed_before(folder) == []
    add_start(folder, "CPU", [("seed", 1, 2), ("optimizer.lr", 1e-3, 2e-3)], 7)
    add_start(folder, "CPU", [("seed", 2, 3)], 9)
    assert allowed_before(folder) == ["seed", "optimizer.lr", "seed"]


@pytest.mark.parametrize(
    "damaged",
    ["{", "[]", "null", "{}", '{"starts": 3}', '{"starts": "abc"}', '{"starts": {"a": 1}}', '{"starts": [null]}',
     '{"starts": [{}]}', '{"starts": [{"allowed_changes": null}]}', '{"starts": [{"allowed_changes": ["seed"]}]}',
     '{"starts": [{"allowed_changes": [{"before": 1}]}]}', '{"starts": [{"allowed_changes": [{"key": 3}]}]}'],
)  # fmt: skip
def test_of_a_damaged_file_nobody_knows_what_was_allowed(damaged, folder):
    (folder.path / "environment.json").write_text(damaged)
    assert allowed_before(folder) is None


def test_the_same_versions_are_no_news(folder):
    assert [add_start(folder, "CPU", [], step) for step in (0, 3, 6)] == ["", "", ""]


def test_other_versions_are_said_once_by_name_old_and_new(folder):
    import torch

    add_start(folder, "CPU", [], 0)
    at_the_start_before(folder, torch="2.0.1", timm="0.9")
    said = add_start(folder, "CPU", [], 3)
    assert said.startswith("versions differ from the previous start: ")
    assert f"torch 2.0.1 → {torch.__version__}" in said
    assert "timm 0.9 → " in said
    assert "numpy" not in said
    assert said.endswith("from here on numbers may differ in their last digits")
    assert add_start(folder, "CPU", [], 6) == ""


def test_python_counts_too():
    before = {"python": "3.11.1", "versions": {"torch": "2"}}
    assert "python 3.11.1 → 3.12.0;" in version_changes(before, before | {"python": "3.12.0"})


def test_what_the_start_before_did_not_note_is_no_difference():
    assert version_changes({}, {"python": "3.12", "versions": {"torch": "2"}}) == ""


def test_a_run_that_begins_anew_has_no_numbers_that_could_differ(folder):
    add_start(folder, "CPU", [], 0)
    at_the_start_before(folder, torch="2.0.1")
    assert add_start(folder, "CPU", [], 0) == ""


def test_the_run_shows_it(train, tmp_path):
    """On the screen and in train.log, at the first start with the other version and no later one."""

    def fail():
        raise RuntimeError("a bug")

    for step in (5, 9):
        with pytest.raises(RuntimeError, match="a bug"):
            train(at={step: fail})
        if step == 5:
            at_the_start_before(RunFolder(tmp_path / "run"), timm="0.0.1")
    train()
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("versions differ from the previous start: timm 0.0.1 → ") == 1


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of git's, with one commit, as the working folder; calls git in it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
        return subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    Path("code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return git


def test_the_commit_is_noted_and_whether_files_differ(folder, repository):
    add_start(folder, "CPU", [], 0)
    Path("code.py").write_text("a = 2\n")
    add_start(folder, "CPU", [], 0)
    commit = repository("rev-parse", "HEAD")
    assert [start["git_commit"] for start in starts(folder)] == [commit, commit + "+"]


def test_the_commit_is_noted_though_git_cannot_say_whether_files_differ(folder, repository):
    Path(".git/index").write_bytes(b"damaged")
    add_start(folder, "CPU", [], 0)
    assert starts(folder)[0]["git_commit"] == repository("rev-parse", "HEAD") + "?"


def test_outside_of_a_repository_there_is_no_commit(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    add_start(folder, "CPU", [], 0)
    assert starts(folder)[0]["git_commit"] is None
