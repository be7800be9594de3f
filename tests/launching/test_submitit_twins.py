"""What a task does under submitit's own executors for machines without Slurm, everywhere."""

import json
import os
import sys

import pytest

from convrun.launching.run_status import run_status

submitit = pytest.importorskip("submitit")


@pytest.fixture
def launched(work, tiny, launch_json):
    """A run folder that was launched, and nothing more."""
    from convrun.plan import Machine, make_plan
    from convrun.recipe.writing import recipe_yaml

    folder = work / "run"
    (folder / "logs").mkdir(parents=True)
    recipe = tiny("training.epochs=1")
    (folder / "recipe.yaml").write_text(recipe_yaml(recipe))
    (folder / "plan.json").write_text(json.dumps(make_plan(recipe, Machine()).as_dict()))
    (folder / "launch.json").write_text(json.dumps(launch_json(working_folder=str(work), info={})))
    return folder


def test_submitits_local_executor_runs_a_task_to_its_end(launched, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "convrun.task", str(launched), "abc"]
    executor = submitit.LocalExecutor(folder=tmp_path / "submitit")
    executor.update_parameters(timeout_min=3)
    job = executor.submit(submitit.helpers.CommandFunction(command, verbose=False))
    assert "finished after step 8" in job.result()
    assert run_status(launched).state == "finished"
    assert (launched / "logs" / "exits" / "rank-0").read_text().startswith("0 ")


def test_submitits_debug_executor_runs_a_task_in_this_process(launched, tmp_path, forked):
    """In a fork of it, as a task leaves its signal handlers behind."""

    def task():
        from convrun.task import main

        pid = os.fork()
        if not pid:
            os._exit(main([str(launched), "abc"]))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    job = submitit.DebugExecutor(folder=tmp_path / "submitit").submit(task)
    assert job.result() == 0
    assert run_status(launched).state == "finished"
