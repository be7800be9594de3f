"""What happens where standard output leads to a full disk."""

import errno
import gc
import io
import os
import subprocess
import sys

import pytest

from convrun import entry
from convrun.process.standard_output import OutputError, StandardOutput, prepare_output


@pytest.mark.parametrize(
    "arguments", [["validate", "digits_demo"], ["list", "components"], ["show", "digits_demo"], ["--help"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told_in_one_line(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "convrun", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert done.stderr == "error: the output cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EAGAIN, errno.ECONNRESET])
def test_what_another_call_of_the_system_raises_is_not_passed_off_as_it(number, monkeypatch):
    """No room in /dev/shm, no process to fork, a connection that is gone: none of them names a file."""

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "argv", ["convrun", "show"])
    monkeypatch.setattr(entry, "_answer", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        entry.main()
    assert not isinstance(caught.value, OutputError)


def test_a_reader_that_has_gone_stays_what_it_is():
    read, write = os.pipe()
    os.close(read)
    stream = StandardOutput(io.TextIOWrapper(io.FileIO(write, "w"), write_through=True))
    with pytest.raises(BrokenPipeError):
        stream.write("x")
    stream.detach().close()


def test_the_stream_it_takes_the_place_of_does_not_close_it(tmp_path, monkeypatch):
    path = tmp_path / "output"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(path.open("wb"), "ascii"))
    prepare_output()
    gc.collect()
    sys.stdout.write("1 × 2\n")
    sys.stdout.flush()
    assert path.read_text() == "1 \\xd7 2\n"
    sys.stdout.close()
