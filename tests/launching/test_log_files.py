"""The end of a log, and the log as it grows."""

import io

from convrun.launching.log_files import follow, last_lines, tail


def test_following_prints_whole_lines_as_they_come_until_the_run_is_over(tmp_path):
    path, out = tmp_path / "log", io.StringIO()
    steps = iter(["", "one\ntw", "o\n", "", "three\n"])

    def is_over():
        step = next(steps, None)
        if step:
            with path.open("a") as file:
                file.write(step)
        return step is None

    follow(path, is_over, out, every=0)
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_following_survives_a_log_that_is_written_anew(tmp_path):
    path, out = tmp_path / "log", io.StringIO()
    path.write_text("a long first line\n")
    steps = iter([None, "new\n"])

    def is_over():
        text = next(steps, "end")
        if text not in (None, "end"):
            path.write_text(text)
        return text == "end"

    follow(path, is_over, out, every=0)
    assert out.getvalue() == "a long first line\nnew\n"


def test_half_a_line_at_the_very_end_is_shown(tmp_path):
    (tmp_path / "log").write_text("one\nkilled in the mid")
    out = io.StringIO()
    follow(tmp_path / "log", lambda: True, out)
    assert out.getvalue() == "one\nkilled in the mid"


def test_the_last_lines_of_a_log_begin_where_a_line_does(tmp_path):
    path = tmp_path / "log"
    assert last_lines(path, 2) == 0
    path.write_bytes(b"a\n" * 40_000 + "bü\nc\nd".encode())
    assert path.read_bytes()[last_lines(path, 3) :] == "bü\nc\nd".encode()
    assert last_lines(path, 10**6) > 0  # a long log is not read whole


def test_the_end_of_a_long_log_starts_with_a_whole_line(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"\xff" * 100 + b"\n" + b"line\n" * 10)
    assert tail(path, 12) == "line\nline\n"
    assert tail(tmp_path / "nowhere") == ""
