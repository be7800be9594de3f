"""The states of jobs: from squeue first, then from sacct where a site has its database; each with a time limit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from convrun.contracts.launcher import JobState

_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "SUSPENDED")
_RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING")
MOST_SECONDS = 20
# Slurm's reason code -> what it means (squeue(1), JOB REASON CODES).
_REASONS = {
    "Priority": "other jobs come first",
    "Resources": "the nodes it needs are busy",
    "BeginTime": "Slurm starts a requeued job after a pause",
    "Dependency": "it waits for another job",
    "DependencyNeverSatisfied": "the job it waits for failed: this one never starts",
    "JobArrayTaskLimit": "its sweep already has as many runs running as array_parallel allows",
    "Licenses": "the licences it needs are in use",
    "Reservation": "its reservation has not begun",
    "JobHeldUser": "its user holds it: scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "PartitionNodeLimit": "it asks for more nodes than the partition has or gives to one job",
    "PartitionTimeLimit": "it asks for more time than the partition gives",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "nodes it names or needs are down, drained or reserved",
    "AssocGrpGRES": "the account's GPUs are all in use",
    "AssocMaxJobsLimit": "the user has as many jobs running as the account allows",
    "QOSGrpGRES": "the GPUs of the quality of service are all in use",
    "QOSMaxJobsPerUserLimit": "the user has as many jobs running as the quality of service allows",
    "QOSMaxGRESPerUser": "it asks for more GPUs than the quality of service gives to a user",
    "launch failed requeued held": "it failed to start, and Slurm holds it: scontrol release",
}


def job_states(jobs: Sequence[tuple[str, str]]) -> list[JobState]:
    """The state of each (job id, job name). A job of that id with another name is another job.

    An unknown state has a reason if Slurm did not answer, and none if Slurm answers that it has no such job.
    """
    ids = sorted({job_id for job_id, _ in jobs if re.fullmatch(r"\d+(_\d+)?", job_id)})
    if not ids:
        return [JobState("unknown") for _ in jobs]
    found, trouble = _squeue(ids)
    left = [job_id for job_id in ids if job_id not in found]
    if left:
        found |= _sacct(left)
    states = []
    for job_id, name in jobs:
        known, state = found.get(job_id, (name, JobState("unknown", reason=trouble)))
        states.append(state if known == name else JobState("unknown"))
    return states


def job_named(name: str) -> str | None:
    """The id of the newest waiting or running job of a name; empty: no such job; None: Slurm does not answer.

    Jobs that have ended are not looked at: Slurm also keeps a record of those that it refused.
    """
    text, trouble = _answer("squeue", "--noheader", f"--name={name}", "--format=%F|%j")
    if trouble:
        return None
    ids = [job_id for job_id, _, found in (line.partition("|") for line in text.splitlines()) if found == name]
    return max((job_id for job_id in ids if job_id.isdecimal()), key=int, default="")


def _squeue(ids: Sequence[str]) -> tuple[dict[str, tuple[str, JobState]], str]:
    """Job id -> (name, state) of the jobs that the controller still remembers; and why it does not answer."""
    wanted = ",".join(sorted({job_id.partition("_")[0] for job_id in ids}))
    text, trouble = _answer("squeue", "--noheader", "--array", "--states=all", f"--jobs={wanted}",
                            "--format=%i|%T|%r|%N|%S|%j")  # fmt: skip
    found = {}
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) == 6:
            job_id, word, reason, nodes, start, name = (field.strip() for field in fields)
            found[job_id] = (name, _state(word, reason, nodes, start))
    return found, "" if "Invalid job id" in trouble else trouble


def _sacct(ids: Sequence[str]) -> dict[str, tuple[str, JobState]]:
    """The same from the accounting database; empty where the site has none."""
    text, _ = _answer("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={','.join(ids)}",
                      "--format=JobID,State,NodeList,JobName")  # fmt: skip
    found = {}
    for line in text.splitlines():
        fields = line.split("|", 3)
        if len(fields) == 4:
            job_id, word, nodes, name = (field.strip() for field in fields)
            found[job_id] = (name, _state(word.split(" ")[0], "", nodes, ""))  # `CANCELLED by 1000`
    return found


def _state(word: str, reason: str, nodes: str, start: str) -> JobState:
    if word in _RUNNING:
        return JobState("running", word, "its processes are ending" if word == "COMPLETING" else "", nodes)
    why = "" if reason == "None" else reason
    meaning = _REASONS.get(why.partition(",")[0])  # `ReqNodeNotAvail, UnavailableNodes:node3`
    why = f"{why} ({meaning})" if meaning else why
    if word in _WAITING:
        return JobState("waiting", word, why, nodes, "" if start == "N/A" else start)
    return JobState("ended", word, why, nodes)


def _answer(*command: str) -> tuple[str, str]:
    """A program's output, and why there is none: it is not installed, failed, or took too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=MOST_SECONDS)
    except FileNotFoundError:
        return "", f"{command[0]} is not on the PATH"
    except OSError as error:
        return "", f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer within {MOST_SECONDS} s"
    if done.returncode:
        return "", " ".join(done.stderr.split()) or f"{command[0]} failed without a message"
    return done.stdout, ""
