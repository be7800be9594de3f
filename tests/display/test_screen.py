import io
import re

import pytest

from convrun.display.screen import Screen
from convrun.text.units import clock

ROW = {
    "kind": "train",
    "step": 3,
    "epoch": 0.3,
    "loss": 1.25,
    "lr": 4e-3,
    "images_per_second": 1234.5,
    "data_wait": 0.07,
}
EVALUATION = {
    "kind": "eval",
    "step": 5,
    "epoch": 0.5,
    "weights": "ema",
    "top1": 50.0,
    "top5": 90.0,
    "loss": 1.5,
    "images": 10,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(screen):
    screen.say("begins")
    screen.start_progress(total_steps=20, steps_per_epoch=10, start_step=0)
    for step in range(1, 6):
        screen.advance(step)
        if step == 3:
            screen.show(ROW)
    screen.show(EVALUATION)
    screen.say("[bold]no markup[/] :fire:")
    screen.stop_progress()
    screen.say("ends")
    screen.close()


def test_without_a_terminal_there_are_plain_lines():
    stream = io.StringIO()
    play(Screen(stream))
    begins, trained, evaluated, text, ends = stream.getvalue().splitlines()
    assert (begins, text, ends) == ("begins", "[bold]no markup[/] :fire:", "ends")
    pattern = r"epoch 1/2  step 3/20  loss 1\.2500  lr 4\.00e-03  1,23[45] images/s  data 7%  left \d:\d\d / \d:\d\d"
    assert re.fullmatch(pattern, trained)
    assert evaluated == ("epoch 1/2  step 5/20  evaluated ema: top-1 50.00 %, top-5 90.00 %, loss 1.5000, 10 images")


def test_on_a_terminal_there_is_a_display_and_the_log_has_no_escape_codes(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    stream = Terminal()
    screen = Screen(stream)
    screen.log_to(tmp_path / "train.log")
    play(screen)
    shown = stream.getvalue()
    assert "\x1b[" in shown
    assert "step 5/20" in shown
    assert "lr 4.00e-03" in shown
    assert "[bold]no markup[/] :fire:" in shown
    assert "\x1b[?25l" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back
    log = (tmp_path / "train.log").read_text()
    assert "\x1b" not in log
    plain = io.StringIO()
    play(Screen(plain))
    timeless = [re.sub(r"left .*", "left", text) for text in (log, plain.getvalue())]
    assert timeless[0] == timeless[1]


def test_the_best_result_so_far_stays_in_sight():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.start_progress(20, 10, 0, report="ema")
    screen.show(EVALUATION)
    screen.show(EVALUATION | {"top1": 40.0, "step": 10})
    screen.show(ROW | {"step": 12})
    assert stream.getvalue().splitlines()[-1].endswith("best 50.00 % (EMA)")


@pytest.mark.parametrize(
    ("report", "before", "best"),
    [("ema", None, "best 50.00 % (EMA)"), ("model", None, "best 30.00 %"), ("model", 62.5, "best 62.50 %"),
     ("ema", 62.5, "best 62.50 % (EMA)"), ("ema", 20.0, "best 50.00 % (EMA)")],
)  # fmt: skip
def test_the_best_is_that_of_the_reported_weights_and_of_all_starts(report, before, best):
    stream = io.StringIO()
    screen = Screen(stream)
    screen.start_progress(20, 10, 4, report=report, best_top1=before)
    screen.show(ROW)
    assert ("best" in stream.getvalue()) == (before is not None)
    screen.show(EVALUATION | {"weights": "model", "top1": 30.0})
    screen.show(EVALUATION)
    screen.show(ROW | {"step": 12})
    assert stream.getvalue().splitlines()[-1].endswith("  " + best)


def test_the_time_left_counts_from_where_the_run_goes_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stream = io.StringIO()
    screen = Screen(stream)
    screen.start_progress(total_steps=1000, steps_per_epoch=100, start_step=440)
    for step in (441, 442):
        now[0] += 30
        screen.advance(step)
    screen.show(ROW)
    # 30 s a step: 58 steps to the end of the epoch, 558 to the end of the run.
    assert stream.getvalue().splitlines()[-1].endswith("left 29:00 / 4 h 39 min")


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


class GoneTerminal(Gone, Terminal):
    pass


@pytest.mark.parametrize("stream", [Gone(), GoneTerminal()])
def test_a_screen_that_nobody_reads_any_more_ends_no_run(stream, tmp_path):
    screen = Screen(stream)
    screen.log_to(tmp_path / "train.log")
    play(screen)
    assert (tmp_path / "train.log").read_text().splitlines()[-1] == "ends"


def test_a_log_on_a_full_disk_ends_no_run(tmp_path):
    (tmp_path / "train.log").symlink_to("/dev/full")
    stream = io.StringIO()
    screen = Screen(stream)
    screen.log_to(tmp_path / "train.log")
    play(screen)
    assert stream.getvalue().splitlines()[-1] == "ends"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (725, "12:05"), (3599.6, "1 h 00 min"), (11220, "3 h 07 min"), (187200, "2 d 4 h")],
)
def test_durations_are_short(seconds, text):
    assert clock(seconds) == text


def test_a_closed_standard_output_ends_no_run(monkeypatch, tmp_path):
    """Python has None there after `>&-`, as services are started."""
    monkeypatch.setattr("sys.stdout", None)
    screen = Screen()
    screen.log_to(tmp_path / "train.log")
    play(screen)
    assert (tmp_path / "train.log").read_text().startswith("begins\n")
