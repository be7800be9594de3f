"""`convrun launch`, up to what is handed to Slurm (a script stands in for it)."""

import json
import re

import pytest

from convrun.recipe import load_recipe

FREE = ("--slurm", "check_folder=false")


@pytest.fixture
def sbatch(program, tmp_path):
    """An sbatch that takes every job; squeue says that it waits."""
    program("sbatch", f"cp $1 {tmp_path}/sent; echo Submitted batch job 7")
    return tmp_path / "sent"


def waiting(program, folder):
    name = json.loads((folder / "launch.json").read_text())["info"]["job_name"]
    program("squeue", f"echo '7|PENDING|Resources||N/A|{name}'")


def test_a_run_is_sent_with_its_resolved_recipe_and_the_user_told_how_to_watch(work, convrun, sbatch, program):
    code, out, error = convrun("launch", *FREE, "seed=5", "optimizer.lr=1e-3", "nodes=2", "-o", "out/run")
    assert (code, error) == (0, "")
    folder = work / "out" / "run"
    assert out.splitlines() == [
        "sent         Slurm job 7",
        f"run folder   {folder}",
        "watch        convrun status out/run",
        "             convrun logs out/run --follow",
        "end          convrun cancel out/run",
    ]
    recipe = load_recipe(folder / "recipe.yaml", plugins=False)
    assert (recipe.seed, recipe.optimizer.values["lr"], recipe.launcher.values["nodes"]) == (5, 1e-3, 2)
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["processes"], plan["batch_size"]) == (2, 8)
    waiting(program, folder)
    code, out, _ = convrun("status", "out/run")
    assert "state        waiting: Resources (the nodes it needs are busy)" in out.splitlines()


def test_the_recipes_launcher_section_gives_the_defaults(work, convrun):
    (work / "recipe.yaml").open("a").write("launcher: {name: slurm, nodes: 4, partition: a, check_folder: false}\n")
    code, out, _ = convrun("launch", "partition=b", "training.micro_batch=2", "--dry-run")
    assert code == 0
    assert "#SBATCH --nodes=4\n" in out
    assert "#SBATCH --partition=b\n" in out
    code, out, _ = convrun("launch", "--local", "--dry-run")
    assert code == 0
    assert "#SBATCH" not in out


def test_without_a_launcher_a_run_goes_to_the_background(work, convrun):
    assert "-m convrun.task" in convrun("launch", "--dry-run")[1].splitlines()[-1]


@pytest.mark.parametrize(
    ("nodes", "gpus", "accumulation"), [(4, 8, 1), (1, 8, 4), (2, 4, 4), (2, 3, None)], ids=["4x8", "1x8", "2x4", "2x3"]
)
def test_the_batch_stays_whatever_the_nodes_are_or_the_counts_that_work_are_named(
    work, convrun, nodes, gpus, accumulation
):
    words = [f"nodes={nodes}", f"gpus_per_node={gpus}", "training.micro_batch=128", "check_folder=false"]
    code, out, error = convrun("launch", "convnext_tiny_in1k", "--slurm", *words, "data.root=/d", "--dry-run")
    if accumulation:
        count = nodes * gpus
        assert code == 0, error
        assert f"{count} processes × micro-batch 128 × accumulation {accumulation} = 4,096 images" in out
    else:
        assert code == 2
        assert "4096 images do not divide over 6 processes" in error
        assert "processes 1, 2, 4, 8, 16" in error


def test_a_dry_run_writes_nothing_and_needs_no_slurm(work, convrun, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    before = sorted(work.rglob("*"))
    code, out, _ = convrun("launch", *FREE, "--dry-run")
    assert (code, sorted(work.rglob("*"))) == (0, before)
    assert out.index("batch        1 process") < out.index("#!/bin/bash") < out.index("srun ")


def test_every_problem_of_recipe_words_and_launcher_is_shown_at_once(work, convrun):
    code, _, error = convrun("launch", *FREE, "nodse=4", "optimizer.lrr=1", "model.dimss=3", "seeed=1", "nodes=0")
    assert code == 2
    assert error.splitlines()[-1] == "5 problems"


def test_a_folder_the_nodes_cannot_see_is_refused_and_nothing_is_made(work, convrun):
    code, _, error = convrun("launch", "--slurm", "-o", "/tmp/somewhere/run")
    assert code == 1
    assert "each machine has its own /tmp" in error
    assert "--output" in error
    assert "check_folder=false" in error


def test_where_slurm_is_not_installed_that_is_said(work, convrun, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, error = convrun("launch", *FREE, "-o", "deep/run")
    assert (code, error.startswith("error: sbatch is not on the PATH")) == (1, True)
    assert not (work / "deep").exists()


def test_a_run_that_waits_or_is_finished_is_not_launched_again(work, convrun, sbatch, program):
    assert convrun("launch", *FREE, "-o", "run")[0] == 0
    waiting(program, work / "run")
    code, _, error = convrun("launch", "run", "--slurm")
    assert (code, "is waiting" in error) == (2, True)
    program("squeue", "exit 1")
    (work / "run" / "status.json").write_text('{"state": "finished", "step": 16, "total_steps": 16}')
    code, _, error = convrun("launch", "run")
    assert (code, "has finished" in error) == (2, True)


def test_a_run_that_was_stopped_is_launched_again_in_its_folder_as_it_is(work, convrun, sbatch):
    assert convrun("launch", *FREE, "-o", "run")[0] == 0
    before = json.loads((work / "run" / "launch.json").read_text())
    (work / "run" / "status.json").write_text('{"state": "preempted", "step": 4, "total_steps": 16}')
    (work / "run" / "checkpoints").mkdir()
    (work / "run" / "checkpoints" / "step-4.pt").touch()
    (work / "run" / "logs" / "cancelled").touch()
    code, _, error = convrun("launch", "run", "optimizer.lr=1")
    assert (code, "optimizer.lr=1: the run in run has begun" in error) == (2, True)
    assert convrun("launch", "run", "nodes=2")[0] == 0
    after = json.loads((work / "run" / "launch.json").read_text())
    assert after["nonce"] != before["nonce"]
    assert after["launcher"]["nodes"] == 2
    assert not (work / "run" / "logs" / "cancelled").exists()
    assert "#SBATCH --nodes=2" in sbatch.read_text()


def test_a_launch_that_is_refused_leaves_the_word_of_the_one_before(work, convrun, sbatch, program):
    """Else a run that was cancelled would be one of which nobody knows a job."""
    assert convrun("launch", *FREE, "-o", "run")[0] == 0
    (work / "run" / "logs" / "cancelled").touch()
    before = (work / "run" / "launch.json").read_bytes()
    program("sbatch", "echo 'sbatch: error: no' >&2; exit 1")
    program("squeue", "exit 0")
    code, _, error = convrun("launch", "run", "partition=nowhere")
    assert (code, error) == (1, "error: Slurm refused the job: sbatch: error: no\n")
    assert (work / "run" / "launch.json").read_bytes() == before
    assert (work / "run" / "logs" / "cancelled").exists()


def test_an_empty_folder_of_the_users_is_empty_again_after_a_refusal(work, convrun, program):
    (work / "mine").mkdir()
    program("sbatch", "echo 'sbatch: error: no' >&2; exit 1")
    assert convrun("launch", *FREE, "-o", "mine")[0] == 1
    assert list((work / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "start"), [("a b,c|d", "a_b_c_d-"), ("x.y+z-", "x.y+z-"), ("数字", "run-"), ("x" * 100, "x" * 60 + "-")]
)
def test_a_jobs_name_is_plain_whatever_the_recipe_is_called(work, convrun, name, start):
    (work / "recipe.yaml").write_text(re.sub("(?m)^name:.*$", f"name: {name}", (work / "recipe.yaml").read_text()))
    code, out, error = convrun("launch", *FREE, "--dry-run")
    assert code == 0, error
    assert f"#SBATCH --job-name={start}" in out


def test_a_folder_of_something_else_is_not_written_into(work, convrun):
    (work / "thesis").mkdir()
    (work / "thesis" / "chapter.tex").touch()
    code, _, error = convrun("launch", *FREE, "-o", "thesis")
    assert (code, "neither empty nor a run folder" in error) == (2, True)


def test_a_sweep_is_one_submission_with_a_folder_and_a_recipe_for_each_run(work, convrun, sbatch):
    code, out, error = convrun(
        "launch", *FREE, "--sweep", "optimizer.lr=1e-3,2e-3", "seed=0,1", "-o", "sw", "--no-plugins"
    )
    assert code == 0, error
    assert "Slurm job array 7, 4 runs" in out
    folders = sorted(path for path in (work / "sw").iterdir() if path.name != "logs")
    assert [f.name for f in folders] == [
        "0-lr=1e-3-seed=0", "1-lr=1e-3-seed=1", "2-lr=2e-3-seed=0", "3-lr=2e-3-seed=1",
    ]  # fmt: skip
    recipes = [load_recipe(folder / "recipe.yaml", plugins=False) for folder in folders]
    assert [(r.optimizer.values["lr"], r.seed) for r in recipes] == [(1e-3, 0), (1e-3, 1), (2e-3, 0), (2e-3, 1)]
    infos = [json.loads((folder / "launch.json").read_text())["info"]["job_id"] for folder in folders]
    assert infos == ["7_0", "7_1", "7_2", "7_3"]
    assert "#SBATCH --array=0-3%4" in sbatch.read_text()
    rows = convrun("list", "runs", "sw")[1].splitlines()
    assert [re.search(r"[012345]-lr\S*|sw/", row)[0] for row in rows[1:]] == ["sw/", *(f.name for f in folders)]


def test_every_problem_of_a_sweeps_values_is_shown_once(work, convrun):
    code, _, error = convrun("launch", *FREE, "model.dimss=3", "--sweep", "optimizer.lr=1e-3,x,y", "seed=0,1")
    assert code == 2
    assert error.splitlines()[-1] == "3 problems"
    assert all(f"must be a number, got '{value}'" in error for value in "xy")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "nodes=1,2"], "a sweep is over keys of the recipe"),
        (["--sweep", "seed=1,1"], "has a value twice"),
        (["--sweep", "seed=0,1", "--wait"], "--wait follows one run"),
        (["--local"], "choose one launcher"),
        (["--dry-run", "--wait"], "--wait follows one run"),
        (["other.yaml"], "there is no file other.yaml"),
    ],
)
def test_what_does_not_go_together_is_refused(work, convrun, words, message):
    code, _, error = convrun("launch", "--slurm", *words)
    assert (code, message in error) == (2, True), error
