"""How far a run is, and whether it is alive: from its folder first, then from its launcher.

A folder may hold anything: half-written files, files of another version or of another program. What cannot be read is
treated as missing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from convrun.contracts.launcher import JobState
from convrun.errors import ConvrunError
from convrun.launching.ended import CODES, has_ended_in_this_start
from convrun.launching.log_files import tail
from convrun.launching.record import CANCELLED, Launch, read_launch
from convrun.run_folder.claim import claim_file, claims_in, read_claim
from convrun.run_folder.process_identity import this_process

# A process on another machine sends a heartbeat every ten seconds (convrun.run_folder.lock); clocks may differ.
SILENT_SECONDS = 90.0
ALIVE = ("waiting", "starting", "running")


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """What is known of a run now.

    Attributes:
        state: waiting, starting, running, finished, failed, preempted, interrupted, diverged, cancelled, killed, or
            unknown.
        step: optimizer steps done, by what the folder holds.
        seconds_left: to the last step, at the speed of the last row; None: not training, or unknown.
        top1: the best of the weights that the recipe reports, in percent.
        why: what ended the run, or why it waits.
        where: the nodes, or the host.
    """

    folder: Path
    name: str
    state: str
    step: int
    total_steps: int
    seconds_left: float | None
    top1: float | None
    why: str
    where: str
    updated: str
    launch: Launch | None
    job: JobState

    @property
    def exit_code(self) -> int | None:
        """The exit code that the run ended with, or would have; None while it is alive."""
        if self.state in ALIVE:
            return None
        return CODES.get(self.state, 130 if self.state == "cancelled" else 1)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        launch = self.launch
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("launch", "job")},
            "folder": str(self.folder),
            "exit_code": self.exit_code,
            "launcher": launch.launcher.get("name") if launch else None,
            "job": dict(launch.info) if launch else None,
            "scheduler": dataclasses.asdict(self.job),
            "sweep": launch.sweep if launch and launch.sweep else None,
            "sweep_values": dict(launch.values) if launch else {},
        }


def run_statuses(folders: Sequence[Path]) -> list[RunStatus]:
    """The status of each run; each launcher is asked once for all its runs."""
    launches = [read_launch(folder) for folder in folders]
    jobs = _asked(launches)
    return [_state(f, launch, job) for f, launch, job in zip(folders, launches, jobs, strict=True)]


def run_status(folder: Path) -> RunStatus:
    """The status of one run."""
    return run_statuses([folder])[0]


def _asked(launches: Sequence[Launch | None]) -> list[JobState]:
    """What the launchers say. A launcher that cannot be built here (its plugin is missing) is skipped."""
    found = [JobState("unknown") for _ in launches]
    groups: dict[str, list[int]] = {}
    for i, launch in enumerate(launches):
        if launch is not None and launch.info:
            groups.setdefault(str(launch.launcher.get("name")), []).append(i)
    for members in groups.values():
        first = launches[members[0]]
        assert first is not None
        try:
            states = first.maker().query([launch.info for i in members if (launch := launches[i])])
        except ConvrunError as error:
            states = [JobState("unknown", reason=str(error)) for _ in members]
        for i, state in zip(members, states, strict=True):
            found[i] = state
    return found


def _state(folder: Path, launch: Launch | None, job: JobState) -> RunStatus:
    status, rows = _json(folder / "status.json"), _rows(folder / "metrics.jsonl")
    plan = _json(folder / "plan.json")
    total = _number(status.get("total_steps")) or _number(plan.get("total_steps"))
    step = max([_number(status.get("step")), *(_number(row.get("step")) for row in rows[-1:])])
    state, why = _verdict(folder, status, launch, job)
    speed = next((row.get("images_per_second") for row in reversed(rows) if row.get("kind") == "train"), None)
    left = None
    if state == "running" and total and isinstance(speed, int | float) and speed > 0:
        left = max(0, total - step) * _number(plan.get("batch_size")) / speed
    host = str(status.get("host", "")) if state not in ("waiting", "starting") else ""
    return RunStatus(
        folder=folder,
        name=str(plan.get("name") or (launch.name if launch else folder.name)),
        state=state,
        step=step,
        total_steps=total,
        seconds_left=left,
        top1=_best(rows, str(plan.get("report", "model"))),
        why=why,
        where=job.nodes or host,
        updated=str(status.get("time", launch.time if launch else "")),
        launch=launch,
        job=job,
    )


def _verdict(folder: Path, status: Mapping[str, Any], launch: Launch | None, job: JobState) -> tuple[str, str]:
    """(state, why): what the folder says, corrected by what the launcher and the claim say."""
    said = str(status.get("state", ""))
    error = str(status.get("error", ""))
    if said == "finished" and job.state != "running":
        return said, ""
    if job.state == "waiting":
        return "waiting", job.reason
    if job.state == "running":
        return _in_job(folder, status, job)
    holder, who = _holder(folder) if said == "running" else ("unknown", "")
    if launch is not None and job.state == "ended" and holder != "alive":  # alive: it was resumed on this machine
        return _after_job(folder, said, error, job)
    if said in ("", "preempted") and launch is not None and (folder / "logs" / CANCELLED).exists():
        return "cancelled", ""
    if said == "running":
        if holder in ("gone", "silent"):
            silence = f"has sent no heartbeat for {SILENT_SECONDS:.0f} s"
            return "killed", f"{who} {'is gone, and could not save' if holder == 'gone' else silence}"
        return ("running", "") if holder in ("alive", "heard") else ("unknown", f"{who} cannot be seen from here")
    if said in CODES:
        return said, error
    if launch is not None:
        return "unknown", job.reason or f"launcher/{launch.launcher.get('name')} no longer knows it"
    return "unknown", "its status.json is missing or cannot be read"


def _in_job(folder: Path, status: Mapping[str, Any], job: JobState) -> tuple[str, str]:
    """A job whose processes run, are ending, or are about to start."""
    said = str(status.get("state", ""))
    if said == "finished":
        return "running", "its last step is done; its processes are ending"
    if job.reason or has_ended_in_this_start(folder, status):
        return "running", job.reason or "its processes are ending"
    return ("running" if said == "running" and _holder(folder)[0] != "gone" else "starting"), ""


def _after_job(folder: Path, said: str, error: str, job: JobState) -> tuple[str, str]:
    """A job that has ended, of a run that has not finished."""
    if (folder / "logs" / CANCELLED).exists() or job.word.startswith("CANCELLED"):
        return "cancelled", ""
    if said in ("failed", "diverged", "interrupted"):
        return said, error
    word = job.word if job.reason in ("", job.word) else f"{job.word}, {job.reason}"
    if said == "preempted" and job.word not in ("NODE_FAIL", "BOOT_FAIL"):
        return said, f"it was not requeued ({word})"
    return "killed" if said == "running" else "failed", f"the job ended ({word})"


def _holder(folder: Path) -> tuple[Literal["alive", "heard", "silent", "gone", "unknown"], str]:
    """Whether the process that writes to the folder is alive, and which process it is.

    Heard, silent: it is on another machine, with or without a recent heartbeat.
    """
    nobody = "its process"
    try:
        numbers = claims_in(folder)
        claim = read_claim(folder, numbers[-1]) if numbers else None
        age = time.time() - claim_file(folder, numbers[-1]).stat().st_mtime if numbers else 0.0
    except OSError:
        return "unknown", nobody
    if claim is None or claim.is_released:
        return "gone", nobody
    if claim.holder is None:
        return "unknown", nobody
    if claim.holder.is_on_the_machine_of(this_process()):
        return "alive" if claim.holder.is_running() else "gone", claim.text
    return "heard" if age < SILENT_SECONDS else "silent", claim.text


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The last rows of a run's metrics; lines that are not rows are skipped."""
    rows = []
    for line in tail(path).splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _best(rows: Sequence[Mapping[str, Any]], report: str) -> float | None:
    found = [row.get("top1") for row in rows if row.get("kind") == "eval" and row.get("weights") == report]
    return max((value for value in found if isinstance(value, int | float)), default=None)


def _number(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
