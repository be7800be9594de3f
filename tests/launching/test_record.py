import json

import pytest

from convrun.contracts.launcher import Launcher
from convrun.errors import ConvrunError
from convrun.launching.record import Launch, read_launch


@pytest.fixture
def launch():
    return Launch(
        nonce="abc",
        name="tiny-1",
        launcher={"name": "slurm", "nodes": 4},
        working_folder="/home/me",
        command=("convrun", "launch"),
        host="login",
        time="2026-01-01T00:00:00+00:00",
        sweep="s",
        values={"seed": "0"},
        info={"job_id": "7"},
    )


def test_what_was_written_is_read(launch, tmp_path):
    launch.write(tmp_path)
    assert read_launch(tmp_path) == launch


def test_the_launcher_is_made_anew_with_its_keys(launch):
    made = launch.maker()
    assert isinstance(made, Launcher)
    assert made.processes == 4


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ({"name": "moon_base"}, "no launcher is named 'moon_base'"),
        ({"name": "slurm", "nodes": "many"}, "does not accept its keys in launch.json"),
        ({"name": "slurm", "key_of_a_later_version": 1}, "does not accept its keys in launch.json"),
        ({}, "no launcher is named 'None'"),
    ],
)
def test_a_launcher_that_cannot_be_made_is_an_error_with_the_reason(launch, tmp_path, launcher, message):
    launch.write(tmp_path)
    data = json.loads((tmp_path / "launch.json").read_text())
    (tmp_path / "launch.json").write_text(json.dumps({**data, "launcher": launcher}))
    with pytest.raises(ConvrunError, match=message):
        read_launch(tmp_path).maker()


@pytest.mark.parametrize("missing", ["nonce", "launcher", "info", "command", "values"])
def test_half_of_it_counts_as_none(launch, tmp_path, missing):
    launch.write(tmp_path)
    data = json.loads((tmp_path / "launch.json").read_text())
    for wrong in (None, 3, [{}]):
        (tmp_path / "launch.json").write_text(json.dumps({**data, missing: wrong}))
        assert read_launch(tmp_path) is None
    del data[missing]
    (tmp_path / "launch.json").write_text(json.dumps(data))
    assert read_launch(tmp_path) is None


def test_secrets_on_the_command_line_are_not_written(launch, tmp_path, monkeypatch):
    import dataclasses

    monkeypatch.setenv("MY_API_KEY", "hunter2hunter2")
    dataclasses.replace(launch, command=("convrun", "launch", "x=hunter2hunter2")).write(tmp_path)
    assert "hunter2" not in (tmp_path / "launch.json").read_text()
