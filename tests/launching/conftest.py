"""A tiny recipe to launch, programs that stand in for Slurm's, and a real Slurm where its programs are installed."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from convrun.contracts.launcher import Job, Submission
from convrun.recipe import load_recipe

CLUSTER = Path(__file__).parents[1] / "slurm-cluster"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "munged")
SYSTEM = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


@pytest.fixture
def work(tmp_path, tiny_file, monkeypatch):
    """A working folder that holds the tiny recipe as recipe.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(tiny_file.read_text())
    return tmp_path


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script under a program's name first on the PATH; nothing of Slurm is found otherwise."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("squeue", "sacct", "scancel", "scontrol", "srun", "sbatch"):
        path = folder / name
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(0o755)

    def make(name, text):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


@pytest.fixture
def keys(tiny_file):
    """The keys of launcher/slurm, with changes."""
    return lambda *words: load_recipe(tiny_file, ["launcher=slurm", *words], plugins=False).launcher.create().keys


@pytest.fixture
def submission(tmp_path):
    def make(*folders):
        home = tmp_path / "home"
        jobs = tuple(
            Job("tiny-1", home / f if len(folders) > 1 else home, tmp_path, f"nonce{f}") for f in folders or "0"
        )
        return Submission("tiny-1", home, jobs)

    return make


@pytest.fixture
def run_folder(tmp_path):
    """Makes a folder as a run leaves it, with the files that are given; JSON where it is not text."""

    def make(name="runs/tiny/one", **files):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        contents = {"recipe.yaml": "name: tiny\n", "plan.json": {"name": "tiny", "batch_size": 8, "report": "model"}}
        contents |= {key.replace("__", "."): value for key, value in files.items()}
        for file, content in contents.items():
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / file).write_text(text)
        return folder

    return make


LAUNCH = {
    "nonce": "abc", "name": "tiny-1", "launcher": {"name": "slurm"}, "working_folder": "/", "command": [], "host": "h",
    "time": "2026-01-01T00:00:00+00:00", "plugins": [], "sweep": "", "values": {},
    "info": {"job_id": "7", "job_name": "tiny-1"},
}  # fmt: skip


@pytest.fixture
def launch_json():
    """The content of a launch.json, with changes."""
    return lambda **changes: {**LAUNCH, **changes}


@pytest.fixture(scope="session")
def cluster():
    """A Slurm cluster of four nodes on this machine, for as long as the tests last."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=SYSTEM) is None]
    if missing:
        pytest.skip(f"no {missing[0]} on the PATH: Debian's slurmctld slurmd slurm-client munge are not installed")
    folder = tempfile.mkdtemp(prefix="convrun-slurm-", dir="/tmp")  # a short path: sockets have no long ones
    try:
        started = alone("start", folder)
        assert started.returncode == 0, started.stdout + started.stderr
        yield f"{folder}/slurm.conf"
    finally:
        alone("stop", folder)
        shutil.rmtree(folder, ignore_errors=True)


def alone(verb, folder):
    """Starts or stops a cluster while no other process does: each looks for free ports, and edits /etc/hosts."""
    with open(f"/tmp/convrun-slurm-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [CLUSTER, verb, "--dir", folder]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, close_fds=True)


@pytest.fixture
def slurm(cluster, monkeypatch):
    """The environment of a login node of the cluster; gives a function that calls one of Slurm's programs."""
    monkeypatch.setenv("SLURM_CONF", cluster)
    for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
        monkeypatch.delenv(name)

    def call(*command):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    return call


@pytest.fixture
def until():
    """Waits for a condition, four minutes at most; says what was there instead."""

    def wait(condition, describe=lambda: ""):
        end = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < end, f"it never came true: {describe()}"
            time.sleep(0.2)

    return wait
