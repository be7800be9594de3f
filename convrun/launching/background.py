"""Runs in the background of this machine: `launcher: local`.

A supervisor in a session of its own (so that closing the terminal does not end it) runs one run after the other, with
the output in logs/launch.log, and writes each exit code to logs/exits/job. It reads what to run from stdin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from convrun.contracts.launcher import Job, JobState, Launcher, LaunchError, Submission
from convrun.launching.ended import EXITS, STARTED, note_end
from convrun.launching.log_files import LOG
from convrun.launching.record import CANCELLED
from convrun.process.signals import SCHEDULER_SIGNALS
from convrun.run_folder import write_whole
from convrun.run_folder.process_identity import ProcessIdentity, process_numbered, this_process

PROCESS = "logs/process.json"  # the process that trains now


class Background(Launcher):
    """The launcher behind launcher/local."""

    def __init__(self, processes: int | None) -> None:
        self.processes = processes

    def command(self, job: Job) -> list[str]:
        """The command line of a job's process."""
        devices = [] if self.processes is None else ["--devices", str(self.processes)]
        return [sys.executable, "-P", "-u", "-m", "convrun.task", str(job.folder), job.nonce, *devices]

    def script(self, submission: Submission) -> str:
        """The commands, as a shell would run them one after the other."""
        lines = [f"cd {shlex.quote(str(submission.jobs[0].working_folder))}"]
        for job in submission.jobs:
            log = shlex.quote(str(job.folder / LOG))
            lines.append(f"{shlex.join(self.command(job))} >>{log} 2>&1")
        return "\n".join(lines)

    def submit(self, submission: Submission) -> list[dict[str, Any]]:
        """Starts the supervisor."""
        work = [{"folder": str(j.folder), "nonce": j.nonce, "command": self.command(j)} for j in submission.jobs]
        with (submission.home / LOG).open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-P", "-m", "convrun.launching.background"],
                cwd=submission.jobs[0].working_folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert supervisor.stdin
        with contextlib.suppress(BrokenPipeError), supervisor.stdin as pipe:  # `query` notices one that died
            pipe.write(json.dumps(work).encode())  # a large sweep is more than a command line takes
        supervisor.returncode = 0  # it outlives this process: nothing to wait for
        process = dataclasses.asdict(process_numbered(supervisor.pid))
        return [{"process": process, "folder": str(job.folder)} for job in submission.jobs]

    def query(self, infos: Sequence[Mapping[str, Any]]) -> list[JobState]:
        """Looks for the processes; those of another machine are unknown."""
        return [_state(info) for info in infos]

    def cancel(self, info: Mapping[str, Any]) -> None:
        """Sends SIGTERM to the run, which saves. A run that has not started never will: its supervisor sees the mark.

        The mark is logs/cancelled, which exists by now. The supervisor looks for it before it starts a process, and
        after it has written down which. So a run that is being started gets the signal, from here or from there.
        """
        supervisor = _identity(info.get("process"))
        if supervisor is None or not supervisor.is_on_the_machine_of(this_process()):
            raise LaunchError(
                f"the run belongs to {supervisor.text if supervisor else 'another machine'}: cancel it there"
            )
        process = _training_in(Path(str(info.get("folder"))))
        if process is not None and process.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def watch_text(self, infos: Sequence[Mapping[str, Any]]) -> str:
        """The supervisor's pid."""
        supervisor = _identity(infos[0]["process"])
        what = "in the background" if len(infos) == 1 else f"{len(infos)} runs in the background, one after the other"
        return f"{what}, {supervisor.text if supervisor else ''}"


def _state(info: Mapping[str, Any]) -> JobState:
    supervisor, folder = _identity(info.get("process")), Path(str(info.get("folder")))
    if supervisor is None or not supervisor.is_on_the_machine_of(this_process()):
        return JobState("unknown")
    host = supervisor.host
    if (folder / EXITS / "job").exists():
        return JobState("ended", "EXITED", nodes=host)
    process = _training_in(folder)
    if process is not None and process.is_running():
        return JobState("running", "RUNNING", nodes=host)
    if supervisor.is_running() and (folder / "logs" / CANCELLED).exists():
        return JobState("ended", "CANCELLED", nodes=host)  # the supervisor will skip it
    if supervisor.is_running():
        return JobState("waiting", "WAITING", "the runs before it", host)
    return JobState("ended", "GONE", "its process is gone", host)


def _identity(data: Any) -> ProcessIdentity | None:
    """A process from JSON; None if the data do not describe one."""
    try:
        found = ProcessIdentity(**data)
    except TypeError:
        return None
    texts = (found.host, found.boot, found.namespace, found.started)
    fits = type(found.pid) is int and found.pid > 1 and all(isinstance(text, str) for text in texts)
    return found if fits and found.started else None


def _training_in(folder: Path) -> ProcessIdentity | None:
    """The process that the supervisor started last in a folder."""
    try:
        return _identity(json.loads((folder / PROCESS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def supervise(work: Sequence[Mapping[str, Any]]) -> None:
    """Runs the commands one after the other. SIGTERM is passed on to the child, and no later command is started."""
    child: subprocess.Popen[bytes] | None = None
    stopped: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        if child is not None and child.poll() is None:
            child.send_signal(number)

    for number in (*SCHEDULER_SIGNALS, signal.SIGINT):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for item in work:
        folder, nonce = Path(item["folder"]), str(item["nonce"])
        if stopped or (folder / "logs" / CANCELLED).exists():
            note_end(folder, nonce, 130)
            continue
        shutil.rmtree(folder / EXITS, ignore_errors=True)
        (folder / EXITS).mkdir(parents=True)
        with (folder / LOG).open("ab") as log:
            (folder / EXITS / STARTED).write_text(str(log.tell()), encoding="utf-8")
            child = subprocess.Popen(item["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        if stopped and child.poll() is None:  # the signal came while the child was being started
            child.send_signal(stopped[-1])
        write_whole(folder / PROCESS, json.dumps(dataclasses.asdict(process_numbered(child.pid))).encode())
        if (folder / "logs" / CANCELLED).exists() and child.poll() is None:  # since the look above
            child.terminate()
        code = child.wait()
        note_end(folder, nonce, code if code >= 0 else 128 - code)


if __name__ == "__main__":
    supervise(json.load(sys.stdin))
