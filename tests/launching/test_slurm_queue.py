import pytest

from convrun.launching.slurm.queue import job_states


def kinds(*jobs):
    return [(state.state, state.word) for state in job_states(jobs)]


def test_squeue_is_asked_once_for_all_jobs(program, tmp_path):
    program(
        "squeue", f"echo \"$@\" >>{tmp_path}/calls; echo '7|RUNNING|None|n1|N/A|a'; echo '9_1|PENDING|Priority||N/A|b'"
    )
    assert kinds(("7", "a"), ("9_1", "b")) == [("running", "RUNNING"), ("waiting", "PENDING")]
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert "--jobs=7,9 " in call


def test_a_job_of_the_same_id_but_another_name_is_another_job(program):
    """Ids begin anew on a new cluster, and after the largest one."""
    program("squeue", "echo '7|COMPLETED|None|n1|N/A|somebody-elses'")
    assert kinds(("7", "mine")) == [("unknown", "")]


def test_a_name_may_hold_the_separator(program):
    program("squeue", "echo '7|RUNNING|None|n1|N/A|a|b'")
    assert kinds(("7", "a|b")) == [("running", "RUNNING")]


def test_what_squeue_has_forgotten_sacct_may_know(program):
    program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    program("sacct", "echo '7|CANCELLED by 1000|n[1-2]|a'; echo '8|COMPLETED|n1|b'")
    assert kinds(("7", "a"), ("8", "b")) == [("ended", "CANCELLED"), ("ended", "COMPLETED")]


def test_without_sacct_a_forgotten_job_is_unknown_and_nothing_waits_for_it(program):
    program("squeue", "exit 0")
    program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert kinds(("7", "a")) == [("unknown", "")]


@pytest.mark.parametrize(
    ("squeue", "reason"),
    [
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", ""),
        ("exit 0", ""),
        ("echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1", "slurm_load_jobs error: Unable to contact"),
        ("exit 1", "squeue failed without a message"),
    ],
)
def test_a_job_that_slurm_does_not_know_is_told_from_a_slurm_that_does_not_answer(program, squeue, reason):
    program("squeue", squeue)
    (state,) = job_states([("7", "a")])
    assert (state.state, state.reason) == ("unknown", reason)


def test_without_slurm_all_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert kinds(("7", "a"), ("", "b"), ("; rm -rf x", "c")) == [("unknown", "")] * 3


def test_garbage_is_no_job(program):
    program("squeue", "printf 'a|b\\n\\377\\376|x|y|z|1|n\\n7|WEIRD_NEW_STATE|x||N/A|a\\n'")
    assert kinds(("7", "a"), ("8", "a")) == [("ended", "WEIRD_NEW_STATE"), ("unknown", "")]


def test_the_expected_start_is_told_of_a_waiting_job(program):
    program("squeue", "echo '7|PENDING|Resources||2026-01-02T03:04:05|a'")
    (state,) = job_states([("7", "a")])
    assert (state.start, state.reason) == ("2026-01-02T03:04:05", "Resources (the nodes it needs are busy)")
