"""What Slurm says of jobs: squeue first, then sacct where a site has its database. Neither is waited for long."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Literal

from convrun.components.launchers import JobState

_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "SUSPENDED")
_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING")
MOST_SECONDS = 20
# Slurm's word -> what it means (squeue(1), job reason codes).
_REASONS = {
    "Priority": "other jobs come first",
    "Resources": "the nodes it needs are busy",
    "BeginTime": "Slurm starts a requeued job after a pause",
    "Dependency": "it waits for another job",
    "JobHeldUser": "its user holds it: scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "PartitionNodeLimit": "it asks for more nodes than the partition has or gives to one job",
    "PartitionTimeLimit": "it asks for more time than the partition gives",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "nodes it names or needs are down, drained or reserved",
    "AssocGrpGRES": "the account's GPUs are all in use",
    "QOSMaxGRESPerUser": "it asks for more GPUs than the quality of service gives to a user",
    "launch failed requeued held": "it failed to start, and Slurm holds it: scontrol release",
}


def states_of(jobs: Sequence[tuple[str, str]]) -> list[JobState]:
    """The state of each (job id, job name); a job of that id with another name is another job."""
    ids = sorted({job_id for job_id, _ in jobs if re.fullmatch(r"\d+(_\d+)?", job_id)})
    if not ids:
        return [JobState("unknown") for _ in jobs]
    found = _squeue(ids)
    left = [job_id for job_id in ids if job_id not in found]
    if left:
        found |= _sacct(left)
    states = []
    for job_id, name in jobs:
        known, state = found.get(job_id, ("", JobState("unknown")))
        states.append(state if known == name else JobState("unknown"))
    return states


def _squeue(ids: Sequence[str]) -> dict[str, tuple[str, JobState]]:
    """Job id -> (name, state), of the jobs that the controller still remembers."""
    wanted = ",".join(sorted({job_id.partition("_")[0] for job_id in ids}))
    text = _answer("squeue", "--noheader", "--array", "--states=all", f"--jobs={wanted}", "--format=%i|%T|%r|%N|%S|%j")
    found = {}
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) == 6:
            job_id, word, reason, nodes, start, name = (field.strip() for field in fields)
            found[job_id] = (name, _state(word, reason, nodes, start))
    return found


def _sacct(ids: Sequence[str]) -> dict[str, tuple[str, JobState]]:
    """The same from the accounting database; nothing where there is none."""
    text = _answer("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={','.join(ids)}",
                   "--format=JobID,State,NodeList,JobName")  # fmt: skip
    found = {}
    for line in text.splitlines():
        fields = line.split("|", 3)
        if len(fields) == 4:
            job_id, word, nodes, name = (field.strip() for field in fields)
            found[job_id] = (name, _state(word.split(" ")[0], "", nodes, ""))  # `CANCELLED by 1000`
    return found


def _state(word: str, reason: str, nodes: str, start: str) -> JobState:
    kind: Literal["waiting", "running", "ended"] = "ended"
    if word in _WAITING:
        kind = "waiting"
    elif word in _RUNNING:
        kind = "running"
    why = "" if reason in ("None", "") or kind == "running" else reason
    meaning = _REASONS.get(why.partition(",")[0])  # `ReqNodeNotAvail, UnavailableNodes:node3`
    why = f"{why} ({meaning})" if meaning else why
    return JobState(kind, word, why, nodes, start if kind == "waiting" and start != "N/A" else "")


def _answer(*command: str) -> str:
    """What a program prints; nothing if it is not here, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=MOST_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
