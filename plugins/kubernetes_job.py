"""A launcher: an indexed Kubernetes Job, one pod per node, with torchrun in each. Needs only kubectl.

Copy this file beside a recipe and list it there:

    plugins: [kubernetes_job.py]
    launcher: {name: kubernetes, image: my/convrun:1, claim: training-disk, nodes: 2, gpus_per_node: 8}

`convrun launch --dry-run` prints the manifest, `convrun launch` applies it. The claim's volume must be mounted here at
the same path as in the pods (`mount`), because the run folder is on it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from convrun.contracts.launcher import Job, JobState, Launcher, LaunchError, Submission
from convrun.errors import KeyProblem
from convrun.keys import Limits, NonNegativeInt, PositiveInt
from convrun.registry import register

PORT = 29400
# A pod that was evicted and saved its state ends with this code, and is restarted without counting as failed.
SAVED = 75
# The first pod writes the log. torchrun's own exit code does not tell what happened: the first pod's is always 1, the
# others' 0 when the run was saved. So every pod ends with the code that rank 0 leaves in the run folder, and all
# of them are restarted together.
POD_SCRIPT = """\
exits="$0/logs/exits" log=/dev/null started=$(mktemp) pipe=$(mktemp -u); mkfifo "$pipe"
if [ "$JOB_COMPLETION_INDEX" = 0 ]; then log="$0/logs/launch.log"; mkdir -p "$exits"; touch "$exits/started"; fi
tee -a "$log" <"$pipe" & tee=$!
"$@" >"$pipe" 2>&1 & task=$!
trap 'kill -TERM "$task"' TERM
wait "$task"; code=$?
while [ "$code" -gt 128 ] && kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done
for _ in {1..60}; do [ "$exits/rank-0" -nt "$started" ] && break; sleep 0.5; done
[ ! "$exits/rank-0" -nt "$started" ] || read -r code _ <"$exits/rank-0"
wait "$tee"; exit "$code"
"""


def check(*, mount: str, **_keys: Any) -> None:
    """Raises KeyProblem for a mount that is not an absolute path."""
    if not mount.startswith("/"):
        raise KeyProblem("mount", f"{mount!r} is not an absolute path", "name the folder where the volume is mounted")


@register("launcher", "kubernetes", check=check)
class Kubernetes(Launcher):
    """A Kubernetes Job (indexed, one pod per node, torchrun in each); pods that are evicted save and resume.

    image: the container image, with convrun in it
    claim: the PersistentVolumeClaim that holds run folders and data
    mount: where its volume is mounted, here and in the pods
    nodes: how many pods
    gpus_per_node: GPUs of each pod, and as many processes
    tasks_per_node: processes of each pod if there are no GPUs
    namespace: the namespace of the Job; null: kubectl's own
    cpus: CPU cores of each pod, as Kubernetes writes them; null: no request
    memory: memory of each pod, as Kubernetes writes it (64Gi); null: no request
    max_restarts: how often pods may fail before the Job fails
    grace_seconds: how long a pod may take to save when it is evicted
    """

    def __init__(
        self,
        *,
        image: Annotated[str, Limits(min_length=1)],
        claim: Annotated[str, Limits(min_length=1)],
        mount: str = "/mnt/training",
        nodes: PositiveInt = 1,
        gpus_per_node: PositiveInt | None = None,
        tasks_per_node: PositiveInt = 1,
        namespace: str | None = None,
        cpus: PositiveInt | str | None = None,
        memory: str | None = None,
        max_restarts: NonNegativeInt = 3,
        grace_seconds: PositiveInt = 120,
    ) -> None:
        self.image, self.claim, self.mount, self.nodes = image, claim, mount, nodes
        self.gpus, self.tasks = gpus_per_node, gpus_per_node or tasks_per_node
        self.namespace, self.max_restarts, self.grace_seconds = namespace, max_restarts, grace_seconds
        wanted = {"cpu": cpus, "memory": memory, "nvidia.com/gpu": gpus_per_node}
        self.resources = {name: str(value) for name, value in wanted.items() if value is not None}
        self.processes = nodes * self.tasks

    def notes(self, submission: Submission) -> list[str]:
        if not submission.home.is_relative_to(self.mount):
            raise LaunchError(
                f"the pods will not see the run folder {submission.home}: it is not below {self.mount}, where the "
                f"volume of {self.claim} is mounted; choose one there with --output"
            )
        return []

    def script(self, submission: Submission) -> str:
        """One manifest for all jobs, in JSON, which is also YAML and needs no package to write."""
        items = [item for job in submission.jobs for item in self._objects(job)]
        return "\n".join(f"---\n{json.dumps(item, indent=2)}" for item in items)

    def submit(self, submission: Submission) -> list[dict[str, Any]]:
        self._kubectl(self.namespace, "apply", "--filename=-", text=self.script(submission))
        return [{"job_name": self._name(job), "namespace": self.namespace} for job in submission.jobs]

    def query(self, infos: Sequence[Mapping[str, Any]]) -> list[JobState]:
        return [self._state(info.get("namespace"), str(info.get("job_name"))) for info in infos]

    def cancel(self, info: Mapping[str, Any]) -> None:
        names = [f"{kind}/{info.get('job_name')}" for kind in ("job", "service")]
        self._kubectl(info.get("namespace"), "delete", *names, "--ignore-not-found", "--wait=false")

    def watch_text(self, infos: Sequence[Mapping[str, Any]]) -> str:
        return f"Kubernetes Job {infos[0]['job_name']}" + (f" and {len(infos) - 1} more" if len(infos) > 1 else "")

    def _name(self, job: Job) -> str:
        """A name that Kubernetes accepts: lower case, digits and dashes; the nonce makes it unique to this launch."""
        plain = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:40]
        return f"{plain or 'run'}-{job.nonce[:8]}"

    def _objects(self, job: Job) -> list[dict[str, Any]]:
        """The Job, and a Service without an address, by whose name the pods find the first one."""
        name = self._name(job)
        metadata = {"name": name, **({"namespace": self.namespace} if self.namespace else {})}
        service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": name}}
        job_spec = {
            "completionMode": "Indexed",
            "completions": self.nodes,
            "parallelism": self.nodes,
            "backoffLimit": self.max_restarts,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [SAVED]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                ]
            },
            "template": {"metadata": {"labels": {"job-name": name}}, "spec": self._pod(job, name)},
        }
        return [
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job_spec},
        ]

    def _pod(self, job: Job, name: str) -> dict[str, Any]:
        torchrun = ["torchrun", f"--nnodes={self.nodes}", f"--nproc-per-node={self.tasks}", "--max-restarts=0",
                    "--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={name}-0.{name}",
                    f"--master-port={PORT}"]  # fmt: skip
        task = [*torchrun, "-m", "convrun.task", str(job.folder), job.nonce]
        container = {
            "name": "train",
            "image": self.image,
            "command": ["bash", "-c", POD_SCRIPT, str(job.folder), *task],
            "workingDir": str(job.working_folder),
            "env": [{"name": "PYTHONSAFEPATH", "value": "1"}],  # a user's random.py there must not replace Python's
            "resources": {"limits": self.resources},
            "volumeMounts": [
                {"name": "training", "mountPath": self.mount},
                {"name": "shared-memory", "mountPath": "/dev/shm"},  # loader workers pass images through it
            ],
        }
        return {
            "subdomain": name,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": self.grace_seconds,
            "containers": [container],
            "volumes": [
                {"name": "training", "persistentVolumeClaim": {"claimName": self.claim}},
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            ],
        }

    def _state(self, namespace: str | None, name: str) -> JobState:
        try:
            answer = self._kubectl(namespace, "get", f"job/{name}", "--ignore-not-found", "--output=json")
            if not answer.strip():
                return JobState("unknown")  # it was deleted
            status = json.loads(answer)["status"]
            ended = [c["type"] for c in status.get("conditions", []) if c["status"] == "True"]
            reasons = [c.get("reason", "") for c in status.get("conditions", []) if c["status"] == "True"]
            active, ready = int(status.get("active", 0)), int(status.get("ready", 0))
        except (LaunchError, ValueError, KeyError, TypeError) as error:
            return JobState("unknown", reason=f"kubectl does not tell the state of job {name} ({error})")
        if "Complete" in ended or "Failed" in ended:
            return JobState("ended", "Complete" if "Complete" in ended else "Failed", reasons[0] if reasons else "")
        if active and ready == self.nodes:
            return JobState("running", "Active", nodes=f"{ready} pods")
        return JobState("waiting", "Pending", f"{ready} of {self.nodes} pods are ready")

    def _kubectl(self, namespace: str | None, *arguments: str, text: str = "") -> str:
        where = [f"--namespace={namespace}"] if namespace else []
        try:
            done = subprocess.run(
                ["kubectl", *where, *arguments], input=text, capture_output=True, text=True, timeout=60
            )
        except FileNotFoundError:
            raise LaunchError(
                "there is no kubectl on the PATH; --dry-run prints the manifest for another machine"
            ) from None
        except subprocess.TimeoutExpired:
            raise LaunchError("kubectl did not answer within 60 s; is the cluster reachable?") from None
        if done.returncode:
            raise LaunchError(f"kubectl {arguments[0]}: {done.stderr.strip() or 'failed without a message'}")
        return done.stdout
