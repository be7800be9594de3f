"""The verbs that do not train import nothing that is heavy: each is asked in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "timm", "numpy", "submitit", "tensorboard", "PIL")
# What the short way to `validate` has no time for (benchmarks/validate.py).
SLOW = ("typer", "click", "rich", "pydantic", "importlib.metadata", "difflib", "unicodedata", "csv")

ASK = f"""
import sys
from convrun.entry import main
try:
    main()
except SystemExit as end:
    loaded = [name for name in {HEAVY + SLOW} if name in sys.modules]
    print("exit", end.code or 0, "loaded", *loaded, file=sys.stderr)
"""


def asked(folder, *arguments, about=HEAVY):
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-c", ASK, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    *words, loaded = done.stderr.splitlines()[-1].partition("loaded")
    return "".join(words) + "".join(f" {name}" for name in loaded.split() if name in about)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["run", "nowhere"], 2),
        (["run", "digits_demo", "training.epochs=0"], 2),
        (["validate", "digits_demo", "convnext_tiny_in1k", "convnext_base_in22k_in1k"], 0),
        (["validate", "digits_demo", "--format", "json"], 0),
        (["validate", "digits_demo", "modle=1"], 2),
        (["list", "components"], 0),
        (["list", "recipes"], 0),
        (["describe", "optimizer/adamw"], 0),
        (["describe", "model/timm/*"], 0),
        (["describe", "augmentation"], 0),
        (["show", "convnext_tiny_in1k", "--origin"], 0),
        (["copy", "convnext_tiny_in1k"], 0),
        (["schema"], 0),
        (["launch", "digits_demo", "--local", "--dry-run"], 0),
        (["launch", "digits_demo", "nodes=2", "--slurm"], 2),
        (["status"], 0),
        (["status", "nowhere"], 2),
        (["logs", "nowhere"], 2),
        (["cancel", "nowhere"], 2),
        (["list", "runs"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_verb_that_does_not_train_loads_nothing_heavy(tmp_path, arguments, code):
    assert asked(tmp_path, *arguments) == f"exit {code} loaded"


def test_a_plain_validate_loads_nothing_that_is_slow(tmp_path):
    assert asked(tmp_path, "validate", "convnext_tiny_in1k", "digits_demo", about=HEAVY + SLOW) == "exit 0 loaded"
    assert "typer" in asked(tmp_path, "validate", "digits_demo", "--no-plugins", about=SLOW)


def test_the_check_can_fail(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "heavy.py").write_text("import numpy\n")
    assert asked(tmp_path, "validate", "digits_demo") == "exit 0 loaded numpy"


def test_asking_about_a_run_that_was_launched_loads_nothing_heavy(tmp_path):
    run = tmp_path / "runs" / "tiny" / "one"
    (run / "logs").mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: tiny\n")
    (run / "logs" / "launch.log").write_text("line\n")
    (run / "status.json").write_text('{"state": "failed", "step": 1, "total_steps": 2}')
    launch = {
        "nonce": "a", "name": "n", "launcher": {"name": "slurm"}, "working_folder": "/", "command": [], "host": "h",
        "time": "t", "plugins": [], "sweep": "", "values": {}, "info": {"job_id": "1", "job_name": "n"},
    }  # fmt: skip
    (run / "launch.json").write_text(json.dumps(launch))
    for arguments, code in ((["status", "one"], 0), (["logs", "one", "-f"], 0), (["cancel", "one"], 2)):
        assert asked(tmp_path, *arguments) == f"exit {code} loaded"
