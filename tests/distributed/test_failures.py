"""A process that fails ends all of them within seconds, and the user reads why once."""

import json
import os
import signal
import sys
import time

import pytest

from convrun.errors import DataError


def fail(error):
    def raise_it():
        raise error

    return raise_it


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def status(folder):
    return json.loads((folder / "status.json").read_text())


@pytest.fixture
def failed(ranks, same_run, tmp_path):
    """Trains with 3 processes of which one does something; gives the exit codes and what all printed."""

    def run(at, *more, count=3, only=None, arguments=None):
        arguments = arguments or same_run(tmp_path / "run", *more)
        processes = ranks(count, arguments, at=at, only=only)
        return processes.wait(), processes.said()

    return run


def test_an_error_of_one_rank_is_said_once_with_its_name_and_no_traceback(failed, tmp_path):
    codes, said = failed({(2, 3): fail(DataError("bad.jpg is no image"))})
    assert codes == [1, 1, 1]
    assert said.count("bad.jpg is no image") == 1
    assert "error: rank 2 on " in said
    assert "Traceback" not in said
    assert status(tmp_path / "run")["state"] == "failed"
    assert status(tmp_path / "run")["error"].endswith("bad.jpg is no image")
    assert "bad.jpg" in (tmp_path / "run" / "train.log").read_text()
    assert "Traceback" in (tmp_path / "run" / "logs" / "rank-2.log").read_text()


def test_an_error_of_rank_0_ends_the_others(failed, tmp_path):
    codes, said = failed({(0, 3): fail(DataError("bad.jpg is no image"))})
    assert codes == [1, 1, 1]
    assert said.count("bad.jpg is no image") == 1
    assert status(tmp_path / "run")["state"] == "failed"


def test_a_bug_shows_one_traceback(failed):
    codes, said = failed({(1, 3): fail(ValueError("not so"))})
    assert codes == [1, 1, 1]
    assert "error: rank 1 on " in said
    assert said.count("Traceback (most recent call last)") == 1
    assert said.count("ValueError: not so") == 1


def test_a_process_that_calls_exit_is_named_and_its_code_is_kept(failed):
    codes, said = failed({(1, 3): lambda: sys.exit(7)})
    assert codes == [7, 7, 7]
    assert said.count("called sys.exit with 7") == 1


def test_a_process_that_is_killed_is_named_though_it_cannot_say_so(failed, tmp_path):
    codes, said = failed({(2, 3): kill(signal.SIGKILL)})
    assert codes[2] == -9
    assert codes[:2] == [1, 1]
    assert said.count("error: rank 2 on ") == 1
    assert "has gone without a word" in said
    assert "Traceback" not in said
    assert "rank 2" in status(tmp_path / "run")["error"]


def test_the_end_of_rank_0_which_serves_the_store_is_noticed(failed):
    codes, said = failed({(0, 3): kill(signal.SIGKILL)})
    assert codes[0] == -9
    assert 0 not in codes
    assert said.count("lost contact with rank 0") == 1


def test_a_process_that_hangs_is_found_by_its_neighbour(ranks, same_run, tmp_path, monkeypatch):
    monkeypatch.setattr("convrun.distributed.failing.watch.SILENCE_SECONDS", 4.0)
    processes = ranks(3, same_run(tmp_path / "run"), at={(1, 3): kill(signal.SIGSTOP)})
    os.waitpid(processes.pids[1], os.WUNTRACED)
    others = {rank: processes.pids.pop(rank) for rank in (0, 2)}
    hanging, processes.pids = processes.pids, others
    assert processes.wait() == [1, 1]
    processes.pids = hanging  # for the fixture to kill
    assert processes.said().count("error: rank 1 on ") == 1
    assert "does not answer: no sign of life for 4 s" in processes.said()


def test_rank_0_that_hangs_with_the_store_it_serves_is_found_by_the_others(ranks, same_run, tmp_path, monkeypatch):
    monkeypatch.setattr("convrun.distributed.failing.watch.SILENCE_SECONDS", 4.0)
    processes = ranks(3, same_run(tmp_path / "run"), at={(0, 3): kill(signal.SIGSTOP)})
    os.waitpid(processes.pids[0], os.WUNTRACED)
    others = {rank: processes.pids.pop(rank) for rank in (1, 2)}
    hanging, processes.pids = processes.pids, others
    assert processes.wait() == [1, 1]
    processes.pids = hanging  # for the fixture to kill
    assert processes.said().count("error: rank 0 on ") == 1
    assert "does not answer: no sign of life for 4 s" in processes.said()


def test_a_process_that_does_not_come_is_named(failed, monkeypatch):
    monkeypatch.setattr("convrun.distributed.meeting.rendezvous.MEETING_SECONDS", 4.0)
    codes, said = failed({}, count=4, only=[0, 1, 3])
    assert codes == [1, 1, 1]
    assert said.count("rank 2 of 4 did not come to 127.0.0.1, port") == 1


def test_another_recipe_in_one_process_is_refused(failed, same_run, tmp_path):
    changed = lambda rank: same_run(tmp_path / "run", *(["seed=4"] if rank == 1 else []))  # noqa: E731
    codes, said = failed({}, arguments=changed)
    assert codes == [1, 1, 1]
    assert said.count("rank 1 (") == 1
    assert "and rank 0 do not have the same recipe" in said
    assert not (tmp_path / "run").exists()


def test_a_wrong_recipe_is_said_once(failed):
    codes, said = failed({}, "training.batch_size=25")
    assert codes == [2, 2, 2]
    assert said.count("25 images do not divide over 3 processes") == 1


def test_a_folder_of_another_run_is_refused_once(failed, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").touch()
    codes, said = failed({})
    assert codes == [1, 1, 1]
    assert said.count("neither empty nor a run folder") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["letter.txt"]


def test_a_second_ctrl_c_in_one_process_ends_all_at_once(failed, tmp_path):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    codes, said = failed({(1, 3): twice})
    assert codes == [130] * 3
    assert said.count("stopped at once, in the midst of step 4") == 1
    assert status(tmp_path / "run")["state"] == "interrupted"


def test_ctrl_c_in_all_processes_at_once_is_one_clean_stop(failed, tmp_path):
    codes, said = failed({(rank, 3): kill(signal.SIGINT) for rank in range(3)})
    assert codes == [130] * 3
    assert said.count("all saved; go on with") == 1
    assert "Traceback" not in said
    assert status(tmp_path / "run")["state"] == "interrupted"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_before_they_have_met_is_said_once(number, code, failed, tmp_path):
    """As torchrun and srun send it. In each it waits until the process can tell who is to speak."""

    def while_the_command_line_is_imported():
        from convrun import entry

        answer = entry._answer
        entry._answer = lambda arguments: (os.kill(os.getpid(), number), answer(arguments))

    codes, said = failed({(rank, None): while_the_command_line_is_imported for rank in range(3)})
    assert codes == [code] * 3
    assert said == f"stopped by {number.name} before training began; nothing was changed, start again the same way\n"
    assert not (tmp_path / "run").exists()


def test_numbers_that_go_wrong_end_all_with_code_3_and_one_message(failed, tmp_path):
    codes, said = failed({}, "optimizer.lr=1e30", "training.clip_grad_norm=null")
    assert codes == [3, 3, 3]
    assert said.count("diverged") == 1
    assert status(tmp_path / "run")["state"] == "diverged"


def test_the_micro_batch_that_auto_found_stays_on_other_numbers_of_processes(ranks, same_run, failed, tmp_path):
    auto = ("training.micro_batch=auto", "evaluation.batch_size=4")
    codes, said = failed({(0, 5): kill(signal.SIGTERM)}, *auto, count=4)
    assert codes == [75] * 4, said
    codes, said = failed({}, *auto, count=3)
    assert codes == [2] * 3
    assert said.count("began with micro-batches of 6 images") == 1
    assert "go on with 1, 2, 4 processes" in said
    codes, said = failed({}, *auto, count=2)
    assert codes == [0, 0], said
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["micro_batch"], plan["processes"], plan["accumulation"]) == (6, 2, 2)
