"""What holds for every launcher."""

import pytest

from convrun.contracts.launcher import Job, Launcher, Submission
from convrun.registry import registry

LAUNCHERS = [component for component in registry.all("launcher") if component.provider == "convrun"]


@pytest.fixture
def submission(tmp_path):
    return Submission("tiny-1", tmp_path, (Job("tiny-1", tmp_path, tmp_path, "abc"),))


@pytest.mark.parametrize("component", LAUNCHERS, ids=lambda c: c.name)
def test_every_process_is_a_task_of_the_run_folder_that_was_launched(component, submission, tmp_path):
    made = component.create(**{key.name: key.default for key in component.own_keys})
    assert isinstance(made, Launcher)
    text = made.script(submission)
    assert "-m convrun.task" in text
    assert str(tmp_path) in text
    assert "abc" in text


@pytest.mark.parametrize("component", LAUNCHERS, ids=lambda c: c.name)
@pytest.mark.parametrize("info", [{}, {"job_id": None}, {"process": 3}, {"process": {"pid": -1}}, {"folder": []}])
def test_what_makes_no_sense_is_unknown(component, info, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    made = component.create(**{key.name: key.default for key in component.own_keys})
    assert [state.state for state in made.query([info, info])] == ["unknown", "unknown"]


def test_one_task_a_gpu():
    slurm = registry.find("launcher", "slurm")
    defaults = {key.name: key.default for key in slurm.own_keys}
    for changes, processes in (
        ({"nodes": 4, "gpus_per_node": 8}, 32),
        ({"nodes": 2, "tasks_per_node": 3}, 6),
        ({"nodes": 2}, 2),
    ):
        assert slurm.create(**{**defaults, **changes}).processes == processes
