"""The released code's flags for saving, logging and starting, and their counterparts in convrun."""

from __future__ import annotations

from convrun.importing.launch import Command
from convrun.importing.translation import Translation


def put_bookkeeping(t: Translation) -> None:
    """Checkpoints and logs; convrun's defaults where the command does not say, since no result depends on them."""
    given = t.given
    if given.has("save_ckpt_freq"):
        t.put("checkpoints.every_epochs", "save_ckpt_freq")
    if given.has("save_ckpt_num"):
        t.put("checkpoints.keep.last", "save_ckpt_num")
    t.no_effect("save_ckpt", "convrun always saves: a run that stops can be resumed")
    t.no_effect("log_dir", "TensorBoard's files are in the run folder")
    if given["enable_wandb"]:
        t.no_effect("enable_wandb", f"to log there, add {{name: wandb, project: {given['project']}}} to logging.to")
    else:
        t.no_effect("enable_wandb", "off")
    for dest in ("project", "wandb_ckpt"):
        t.no_effect(dest, "it belongs to Weights & Biases")
    _tell_of_resuming(t)


def _tell_of_resuming(t: Translation) -> None:
    given = t.given
    t.no_effect("auto_resume", "convrun run --resume auto, never or must; auto goes on with --output DIR")
    if given["resume"]:
        t.hint(
            "resume",
            "convrun cannot resume a run of main.py, only its own run folders. To start from "
            f"these weights instead: init.from={given['resume']}",
        )
        t.no_effect("start_epoch", "main.py takes it from the checkpoint of --resume")
    else:
        t.no_effect("resume", "empty")
        if given["start_epoch"]:
            t.refuse("start_epoch", "without --resume it skips part of the schedule; convrun starts at the beginning")
        else:
            t.no_effect("start_epoch", "0 is the beginning")


def put_run_hints(t: Translation, command: Command) -> None:
    """How to start it as the command did."""
    given = t.given
    folder = given["output_dir"]
    if command.script == "run_with_submitit.py":
        _tell_of_submitit(t)
        folder = given["job_dir"]
    for dest in ("output_dir", "job_dir"):
        if dest in given.flags and given[dest] == folder:
            t.hint(
                dest, f"convrun run THIS.yaml --output {folder}" if folder else "convrun names the run folder itself"
            )
    t.hint(
        "device", "convrun run --device cpu" if given["device"] == "cpu" else "convrun takes a GPU where there is one"
    )


def _tell_of_submitit(t: Translation) -> None:
    given = t.given
    t.no_effect("output_dir", "run_with_submitit.py replaces it with --job_dir")
    nodes, gpus = given["nodes"], given["ngpus"]
    wishes = [f"{nodes} node{'s' if nodes != 1 else ''}", f"{gpus} GPUs each"]
    wishes += [f"{given['timeout']} hours"] if given.has("timeout") else []
    wishes += [f"partition {given['partition']}"] if given.has("partition") else []
    wishes += [f"comment {given['comment']!r}"] if given.has("comment") else []
    wishes += ["GPUs of 32 GB"] if given.has("use_volta32") else []
    t.draft.hints.append(f"run_with_submitit.py asks Slurm for {', '.join(wishes)}; that is for a launcher section")
