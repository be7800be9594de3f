"""TensorBoard's event files: how rows become records, and how a start takes over what earlier starts have written.

TensorBoard reads the files of a folder in the order of their names, which begin with a whole second, and knows restarts
by an event that purges all later steps. Two starts within a second, or a clock that was set back, would make it purge
the wrong ones. So the valid records of earlier starts go into one file whose name sorts first, and the file of this
start is the only other one. Records are framed as TensorFlow's TFRecords: length, check sum, data, check sum.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from convrun.files.appended_file import AppendedFile
from convrun.run_folder import sync_folder, write_whole

EARLIER = "events.out.tfevents.0000000000.convrun"
OURS = "events.out.tfevents.*.convrun"


def open_events(folder: Path, last_step: int, evaluated_step: float, say: Callable[[str], None]) -> AppendedFile:
    """A new event file of a run that resumes after a step; records of later steps and damaged ones are dropped.

    Raises:
        OSError, RunFolderError: a file cannot be read or written.
    """
    folder.mkdir(exist_ok=True)
    _take_over(folder, last_step, evaluated_step)
    name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.convrun"
    (folder / name).unlink(missing_ok=True)
    file = AppendedFile(folder / name, say)
    # A running TensorBoard still has the dropped steps in memory: this event removes them.
    file.append(_head(last_step + 1))
    return file


def event_record(row: Mapping[str, Any]) -> bytes:
    """The numbers of a row as one record, so that the file holds all of them or none."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    prefix = f"eval/{row['weights']}" if row["kind"] == "eval" else row["kind"]
    values = [
        Summary.Value(tag=f"{prefix}/{key}", simple_value=value)
        for key, value in row.items()
        if key not in ("step", "epoch") and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return _framed(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=values)))


def _head(purge_step: int) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    now = time.time()
    version = Event(wall_time=now, step=purge_step, file_version="brain.Event:2")
    start = Event(wall_time=now, step=purge_step, session_log=SessionLog(status=SessionLog.START))
    return _framed(version) + _framed(start)


def _framed(event: Any) -> bytes:
    data: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join([length, _check_sum(length), data, _check_sum(data)])


def _check_sum(data: bytes) -> bytes:
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return struct.pack("<I", masked_crc32c(data))


def _take_over(folder: Path, last_step: int, evaluated_step: float) -> None:
    paths = sorted(folder.glob(OURS))
    if not paths:
        return
    write_whole(folder / EARLIER, b"".join(_kept(paths, last_step, evaluated_step)))
    for path in paths:
        if path.name != EARLIER:
            path.unlink()
    sync_folder(folder)


def _kept(paths: list[Path], last_step: int, evaluated_step: float) -> Iterator[bytes]:
    """The records that are kept, each once: a start that was killed during this may have left some in two files."""
    from tensorboard.compat.proto.event_pb2 import Event

    seen = set()
    for path in paths:
        for framed, data in _records(path.read_bytes()):
            event = Event.FromString(data)
            if not event.summary.value:
                continue
            tag = event.summary.value[0].tag
            is_too_late = event.step > (min(last_step, evaluated_step) if tag.startswith("eval/") else last_step)
            if not is_too_late and (tag, event.step) not in seen:
                seen.add((tag, event.step))
                yield framed


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(the record with its frame, its data) of every record whose check sums are right.

    TensorBoard stops at the first wrong one. After a wrong length, the start of the next record is unknown.
    """
    place = 0
    while content[place + 8 : place + 12] == _check_sum(length := content[place : place + 8]):
        end = place + 16 + struct.unpack("<Q", length)[0]
        data = content[place + 12 : end - 4]
        if content[end - 4 : end] == _check_sum(data):
            yield content[place:end], data
        place = end
