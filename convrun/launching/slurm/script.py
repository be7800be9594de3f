"""The batch script of a Slurm job.

submitit writes the #SBATCH lines, names the command that sends them and reads its answer. What runs in the job is not
submitted as a pickled function, though: each task is `convrun.task`, and a few lines of shell in the script decide what
happens after it. The reasons are what submitit does with a pickled function:

- it counts every signal of a job of ten minutes or less as a time-out, and gives up after three time-outs: here the
  exit code (75: saved) and `max_requeues` decide, whatever the limit is;
- its pickle holds the path of the code and of the folder at the time: here the script names the run folder, and the
  recipe in it is plain text;
- exceptions end in a result file, and the job's exit code says little: here rank 0's exit code is the job's;
- its signal handler is inherited by loader workers that are forked, and each of them requeues the job: here nobody but
  the script requeues, once, when all processes have ended;
- results are found by job id, and ids start over on a new cluster: here nothing is read by id alone (the job's name
  holds a nonce);
- its state comes from sacct and stays UNKNOWN without it: `convrun.launching.slurm.queue` asks squeue as well,
  and the run folder first;
- it sets a wckey, and a limit of five minutes, where the user set none: here neither;
- it takes %j in a folder's name for the job's id, and writes the script elsewhere: here the script is
  `logs/submission.sh` (`convrun.launching.slurm.submission` sends it).
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from convrun.contracts.launcher import Submission
from convrun.launching.ended import STARTED
from convrun.launching.log_files import LOG
from convrun.launching.record import CANCELLED
from convrun.launching.slurm.keys import SlurmKeys, options_of

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor

# Left over from another job or from torchrun, these would give the processes a wrong rank.
STALE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "MASTER_ADDR",
         "MASTER_PORT", "TORCHELASTIC_RUN_ID")  # fmt: skip


def script_text(keys: SlurmKeys, submission: Submission) -> str:
    """The batch script, as it is submitted."""
    return str(executor(keys, submission)._make_submission_file_text(_body(keys, submission), ""))


def executor(keys: SlurmKeys, submission: Submission) -> SlurmExecutor:
    """Submitit's executor, with the parameters that follow from the keys."""
    from submitit.slurm.slurm import SlurmExecutor

    class Executor(SlurmExecutor):
        """Writes scripts even where Slurm is not installed."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    made = Executor(submission.home / "logs")
    made.update_parameters(**_parameters(keys, submission))
    if len(submission.jobs) > 1:
        made.parameters["map_count"] = len(submission.jobs)  # what submitit itself does for an array
    return made


def _parameters(keys: SlurmKeys, submission: Submission) -> dict[str, Any]:
    """Submitit's names for what the keys say. None leaves a line out, where submitit has a default of its own."""
    untouched = ("partition", "account", "qos", "constraint", "nodelist", "exclude", "gres", "dependency", "comment",
                 "mail_type", "mail_user", "time", "mem", "cpus_per_task", "gpus_per_node", "nodes")  # fmt: skip
    ours: dict[str, Any] = {
        "chdir": str(submission.jobs[0].working_folder),
        "signal": f"USR2@{keys.signal_seconds}",
        ("requeue" if keys.max_requeues else "no-requeue"): True,
        "output": _pattern(submission),
    }
    if keys.reservation is not None:
        ours["reservation"] = keys.reservation
    return {
        **{name: getattr(keys, name) for name in untouched},
        "job_name": submission.name,
        "ntasks_per_node": keys.tasks,
        "exclusive": keys.exclusive or None,
        "setup": list(keys.setup) or None,
        "array_parallelism": keys.array_parallel or len(submission.jobs),
        "wckey": None,
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": {**ours, **options_of(keys.sbatch)},
    }


def _pattern(submission: Submission) -> str:
    """Where the script's own output goes. Slurm reads % in a path as the start of a replacement symbol."""
    home = str(submission.home).replace("%", "%%")
    return f"{home}/logs/%a.log" if len(submission.jobs) > 1 else f"{home}/{LOG}"


def _body(keys: SlurmKeys, submission: Submission) -> str:
    """What the job does: starts its processes, then acts on their exit code."""
    python = shlex.quote(keys.python or ("python" if keys.image else sys.executable))
    cores = f"--cpus-per-task={keys.cpus_per_task} " if keys.cpus_per_task else ""  # srun does not take sbatch's
    extra = "".join(f"{shlex.quote(argument)} " for argument in keys.srun_args) + _container(keys, submission)
    return "\n".join(
        [
            *_which_run(submission),
            f"most={keys.max_requeues} restarts=${{SLURM_RESTART_COUNT:-0}}",
            f"unset {' '.join(STALE)}",
            *_BEFORE,
            f"srun --export=ALL --kill-on-bad-exit=1 --wait=0 {cores}{extra}{python} -P -u "
            '-m convrun.task "$run" "$nonce"',
            *_AFTER,
            f"noted=$(srun --export=ALL --nodes=1 --ntasks=1 --ntasks-per-node=1 {extra}{python} -P "
            '-m convrun.launching.ended "$run" "$nonce" "$code")',
            *_AT_LAST,
        ]
    )


_BEFORE = (
    "set +e  # whatever setup has set: what follows looks at exit codes",
    "trap : USR1 USR2  # for the processes; this shell outlives them",
    'if [ "$restarts" -gt "$most" ]; then',
    '  echo "convrun: restarted $restarts times, and max_requeues is $most: left as it is"',
    "  exit 75",
    "fi",
    'rm -rf "$run/logs/exits"; mkdir -p "$run/logs/exits"',
    f'stat -c %s "$run/{LOG}" >"$run/logs/exits/{STARTED}" 2>/dev/null',
)
_AFTER = (
    "code=$?",
    "# Rank 0 speaks for the run, if it got to: the others may have been killed because it had ended.",
    'if [ -s "$run/logs/exits/rank-0" ]; then read -r code _ <"$run/logs/exits/rank-0"; fi',
    f'if [ "$code" = 75 ] && [ "$restarts" -lt "$most" ] && [ ! -e "$run/logs/{CANCELLED}" ]; then',
    '  echo "convrun: saved; restart $((restarts + 1)) of at most $most"',
    '  if scontrol requeue "$SLURM_JOB_ID"; then exit 75; fi',
    "fi",
)
_AT_LAST = (
    "noted=${noted##*$'\\n'}  # an image may greet first",
    'if [ -n "$noted" ] && [ "$noted" -ge 0 ] 2>/dev/null; then code=$noted; fi',
    'exit "$code"',
)


def _which_run(submission: Submission) -> list[str]:
    """The run folder and its nonce; those of an array's element, and its log."""
    folders = [shlex.quote(str(job.folder)) for job in submission.jobs]
    nonces = [job.nonce for job in submission.jobs]
    if len(folders) == 1:
        return [f"run={folders[0]} nonce={nonces[0]}"]
    return [
        "runs=(",
        *(f"  {folder}" for folder in folders),
        ")",
        f"nonces=({' '.join(nonces)})",
        "run=${runs[$SLURM_ARRAY_TASK_ID]} nonce=${nonces[$SLURM_ARRAY_TASK_ID]}",
        f'exec >>"$run/{LOG}" 2>&1 || exit 1',
    ]


def _container(keys: SlurmKeys, submission: Submission) -> str:
    """Srun's arguments for a container that sees the run folder and the working folder where they are."""
    if keys.image is None:
        return ""
    own = dict.fromkeys([submission.home, submission.jobs[0].working_folder])
    mounts = ",".join([*(f"{folder}:{folder}" for folder in own), *keys.mounts])
    work = submission.jobs[0].working_folder
    arguments = [f"--container-image={keys.image}", f"--container-mounts={mounts}", f"--container-workdir={work}"]
    return "".join(f"{shlex.quote(argument)} " for argument in arguments)
