import pytest

from convrun.errors import KeyProblem
from convrun.launching.slurm.keys import options_of, seconds_of


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (90, 5400), ("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86400), ("1-12", 129600),
        ("1-12:30", 131400), ("1-12:30:15", 131415), ("UNLIMITED", None), ("infinite", None), (None, None),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(time, seconds):
    assert seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["2h", "1d", "", "1-", "-1", "1:2:3:4", "1.5", "tomorrow"])
def test_what_slurm_would_not_read_is_refused(time):
    with pytest.raises(KeyProblem, match=r"hours:minutes:seconds"):
        seconds_of(time)


def test_options_for_sbatch_are_read_in_every_way_people_write_them():
    lines = ("--licenses=a:1", "#SBATCH --nice=100", "hint=nomultithread", "--contiguous", "--container-env=A=b")
    assert options_of(lines) == {
        "licenses": "a:1", "nice": "100", "hint": "nomultithread", "contiguous": True, "container-env": "A=b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-A abc", "not a long option"),
        ("--nodes=3", "set the key nodes"),
        ("--output=/x", "leave it out"),
        ("--array=0-3", "leave it out"),
        ("--quiet", "leave it out"),
        ("wait", "leave it out"),
        ("#SBATCH --test-only", "leave it out"),
        ("rm -rf /", "not a long option"),
        ("", "not a long option"),
        ("--a=1\n#SBATCH --b", "not a long option"),
    ],
)
def test_options_that_convrun_sets_or_sbatch_cannot_read_are_refused(line, message):
    with pytest.raises(KeyProblem, match=message):
        options_of((line,))


def test_the_same_option_twice_is_refused():
    with pytest.raises(KeyProblem, match="twice"):
        options_of(("--nice=1", "nice=2"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gpus_per_node=8 tasks_per_node=4", "launcher.tasks_per_node: is 4, but one task a GPU makes 8"),
        ("mounts=/a:/b", "launcher.mounts: has no effect without an image"),
        ("time=2 signal_seconds=120", "launcher.signal_seconds: is 120 s, and the time limit is 120 s"),
        ("time=2h", "launcher.time: '2h' is not a time that Slurm reads"),
        ("nodes=0", "launcher.nodes: must be greater than 0"),
        ("sbatch=--time=3", "launcher.sbatch: convrun sets --time itself"),
    ],
)
def test_what_contradicts_is_an_error_of_the_recipe(work, convrun, words, message):
    code, out, error = convrun("launch", "--slurm", *words.split(), "--dry-run")
    assert (code, out) == (2, "")
    assert message in error
