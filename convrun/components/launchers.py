"""The launchers a recipe can name; what they do is in `convrun.launching`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from convrun.keys import Limits, NonNegativeInt, PositiveInt
from convrun.registry import register

if TYPE_CHECKING:
    from convrun.launching.background import Background
    from convrun.launching.slurm.launcher import Slurm

Text = Annotated[str, Limits(min_length=1)]


@register("launcher", "local")
def local(*, processes: PositiveInt | None = None) -> Background:
    """The background of this machine: a run outlives the terminal, and the runs of a sweep follow one another.

    processes: how many processes train; null: as many as `convrun run` starts by itself, one per GPU
    """
    from convrun.launching.background import Background

    return Background(processes)


def _check_slurm(**keys: Any) -> None:
    """Raises KeyProblem for keys that contradict each other; needs no Slurm."""
    from convrun.launching.slurm.keys import check

    check(keys)


@register("launcher", "slurm", check=_check_slurm)
def slurm(
    *,
    nodes: PositiveInt = 1,
    gpus_per_node: PositiveInt | None = None,
    tasks_per_node: PositiveInt | None = None,
    cpus_per_task: PositiveInt | None = None,
    mem: NonNegativeInt | Text | None = None,
    time: PositiveInt | Text | None = None,
    partition: Text | None = None,
    account: Text | None = None,
    qos: Text | None = None,
    constraint: Text | None = None,
    reservation: Text | None = None,
    nodelist: Text | None = None,
    exclude: Text | None = None,
    gres: Text | None = None,
    exclusive: bool = False,
    dependency: Text | None = None,
    comment: Text | None = None,
    mail_type: Text | None = None,
    mail_user: Text | None = None,
    signal_seconds: PositiveInt = 120,
    max_requeues: NonNegativeInt = 20,
    array_parallel: PositiveInt | None = None,
    setup: tuple[str, ...] = (),
    srun_args: tuple[Text, ...] = (),
    sbatch: tuple[Text, ...] = (),
    image: Text | None = None,
    mounts: tuple[Text, ...] = (),
    python: Text | None = None,
    check_folder: bool = True,
) -> Slurm:
    """A Slurm job (for a sweep a job array), one task per GPU; when it is preempted, it saves, is requeued and resumes.

    nodes: how many nodes
    gpus_per_node: GPUs of each node, and as many tasks; null: no GPU is requested
    tasks_per_node: tasks of each node if there are no GPUs (or they are requested by gres); null: gpus_per_node or 1
    cpus_per_task: CPU cores of each task, its loader workers included
    mem: memory of each node, as Slurm writes it: MB, or 64G; 0: all
    time: limit of one start, as Slurm writes it: minutes, hours:minutes:seconds, days-hours, ...
    partition: as sbatch's --partition
    account: as sbatch's --account
    qos: as sbatch's --qos
    constraint: as sbatch's --constraint
    reservation: as sbatch's --reservation
    nodelist: as sbatch's --nodelist
    exclude: as sbatch's --exclude
    gres: as sbatch's --gres
    exclusive: as sbatch's --exclusive
    dependency: as sbatch's --dependency
    comment: as sbatch's --comment
    mail_type: as sbatch's --mail-type
    mail_user: as sbatch's --mail-user
    signal_seconds: seconds before the time limit, or before a preemption, at which Slurm signals the run to save
    max_requeues: how often the job is requeued at most
    array_parallel: how many runs of a sweep may run at a time; null: all
    setup: shell lines that the job runs first, such as `module load cuda`
    srun_args: arguments for srun
    sbatch: further options for sbatch, such as `--licenses=a:1`
    image: a container image, for srun's --container-image (pyxis and enroot)
    mounts: for srun's --container-mounts; the run folder and the working folder are mounted anyway
    python: the interpreter on the nodes; null: this one, or `python` in an image
    check_folder: whether to refuse a run folder that, as far as this machine can tell, other nodes cannot see
    """
    from convrun.launching.slurm.keys import SlurmKeys
    from convrun.launching.slurm.launcher import Slurm

    keys = dict(locals())
    return Slurm(SlurmKeys(**{name: value for name, value in keys.items() if name in SlurmKeys.names()}))
