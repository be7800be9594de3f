"""The manifest, what its pods' few lines of shell do, and what is asked of kubectl (a script that stands in for it)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PLUGIN = Path(__file__).parents[2] / "plugins" / "kubernetes_job.py"


@pytest.fixture
def launch(recipe_with, convrun, tmp_path):
    """Launches the tiny recipe by the plugin; its volume is mounted at the working folder."""
    recipe = recipe_with(
        PLUGIN.name, launcher=f"{{name: kubernetes, image: my/convrun:1, claim: disk, mount: {tmp_path}, nodes: 2}}"
    )
    return lambda *words: convrun("launch", recipe, *words)


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that notes its arguments and its input, and prints an answer."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def answer(text="", code=0):
        script = (
            f"#!/bin/sh\necho \"$@\" >>{tmp_path}/calls\ncat >{tmp_path}/input\ncat <<'END'\n{text}\nEND\nexit {code}\n"
        )
        (folder / "kubectl").write_text(script)
        (folder / "kubectl").chmod(0o755)

    answer()
    return answer


def manifest(output):
    """The objects of what a dry run prints after the plan."""
    return list(yaml.safe_load_all(output.partition("\n---\n")[2]))


def test_the_dry_run_prints_an_indexed_job_of_one_pod_a_node_with_torchrun(launch, tmp_path):
    code, out, _ = launch("gpus_per_node=4", "memory=64Gi", "namespace=team", "--dry-run")
    assert code == 0
    service, job = manifest(out)
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert (job["kind"], job["metadata"]["namespace"]) == ("Job", "team")
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "4"}
    command = container["command"]
    name = job["metadata"]["name"]
    assert ["--nnodes=2", "--nproc-per-node=4", f"--master-addr={name}-0.{name}"] == [
        word for word in command if word.startswith(("--nnodes", "--nproc", "--master-addr"))
    ]
    assert command[-4:-2] == ["-m", "convrun.task"]
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"] == name
    assert not (tmp_path / "runs").exists()
    assert "8 processes" in out


def test_launching_applies_the_manifest_and_status_asks_for_the_job(launch, kubectl, convrun, tmp_path):
    code, out, error = launch("-o", "run")
    assert code == 0, error
    assert (tmp_path / "calls").read_text() == "apply --filename=-\n"
    _, job = yaml.safe_load_all((tmp_path / "input").read_text())
    name = job["metadata"]["name"]
    assert f"Kubernetes Job {name}" in out
    for status, state in (
        ({"active": 2, "ready": 1}, "waiting"),
        ({"active": 2, "ready": 2}, "starting"),
        ({"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}, "failed"),
    ):
        kubectl(json.dumps({"status": status}))
        assert json.loads(convrun("status", "run", "--format", "json")[1])["state"] == state
    kubectl(json.dumps({"status": {"active": 2, "ready": 2}}))
    assert convrun("cancel", "run")[0] == 0
    assert (tmp_path / "calls").read_text().splitlines()[-1] == (
        f"delete job/{name} service/{name} --ignore-not-found --wait=false"
    )
    kubectl()  # it is gone
    assert json.loads(convrun("status", "run", "--format", "json")[1])["state"] == "cancelled"


def test_each_job_is_asked_for_in_its_own_namespace(launch, kubectl, convrun, tmp_path):
    for name in ("a", "b"):
        assert launch(f"namespace={name}", "-o", f"runs/{name}/run")[0] == 0
    (tmp_path / "calls").unlink()
    convrun("list", "runs")
    assert [call.split()[0] for call in (tmp_path / "calls").read_text().splitlines()] == [
        "--namespace=a",
        "--namespace=b",
    ]


def test_kubectls_own_reason_is_told_and_nothing_is_left(launch, tmp_path, kubectl):
    (tmp_path / "programs" / "kubectl").write_text("#!/bin/sh\necho 'error: no such namespace' >&2\nexit 1\n")
    code, _, error = launch("-o", "run")
    assert (code, error) == (1, "error: kubectl apply: error: no such namespace\n")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_beside_the_volume_is_refused(launch):
    code, _, error = launch("mount=/elsewhere", "--dry-run")
    assert code == 1
    assert "is not below /elsewhere" in error


def test_a_relative_mount_is_an_error_of_the_recipe(launch):
    code, _, error = launch("mount=disk", "--dry-run")
    assert code == 2
    assert "launcher.mount: 'disk' is not an absolute path" in error


@pytest.fixture
def pod(tmp_path):
    """Runs the script of a pod with a task written in shell; gives its exit code."""
    sys.path.insert(0, str(PLUGIN.parent))
    try:
        from convrun.plugins import load_plugins

        load_plugins([str(PLUGIN)])
        module = next(m for n, m in sys.modules.items() if n.startswith("convrun_plugin_kubernetes_job"))
    finally:
        sys.path.pop(0)
    (tmp_path / "logs").mkdir()

    def start(task, index=0):
        environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index), "RUN": str(tmp_path)}
        return subprocess.Popen(["bash", "-c", module.POD_SCRIPT, str(tmp_path), "bash", "-c", task], env=environment)

    return start


LEAVE = 'sleep 0.05; mkdir -p "$RUN/logs/exits"; echo "75 n" >"$RUN/logs/exits/rank-0"; exit {}'


@pytest.mark.parametrize(("index", "own"), [(0, 1), (1, 0)])
def test_every_pod_ends_with_rank_0s_exit_code(pod, tmp_path, index, own):
    assert pod(f"echo said; {LEAVE.format(own)}", index).wait() == 75
    assert (tmp_path / "logs" / "launch.log").exists() == (index == 0)


def catches(pid, number):
    """Whether a process has a handler for a signal (proc(5), SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.partition(":")[2] for line in lines if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_an_evicted_pod_hands_the_signal_on_and_waits_until_the_run_is_saved(pod, tmp_path, wait_until):
    begun = tmp_path / "begun"
    process = pod(f"trap 'sleep 0.3; {LEAVE.format(1)}' TERM; touch {begun}; while :; do sleep 0.05; done")
    wait_until(lambda: begun.exists() and catches(process.pid, signal.SIGTERM))
    process.terminate()
    assert process.wait() == 75
