"""Which process of how many this is: torchrun's variables, then a Slurm step's, then alone."""

import pytest

from convrun.errors import UsageError
from convrun.process.slurm_step import FIRST_PORT, PORTS, first_host, local_size, port
from convrun.process.world import World, world_of

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "gpu1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
# As srun -N2 -n4 sets them on the second node (Slurm 22.05, `srun env`).
STEP = {
    "SLURM_JOB_ID": "71",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_JOB_NODELIST": "node[1-4]",
    "SLURMD_NODENAME": "node4",
}


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


def test_nothing_in_the_environment_is_one_process_alone():
    world = world_of({"PATH": "/bin"})
    assert (world.rank, world.size, world.launcher, world.nodes) == (0, 1, "alone", 1)


def test_torchruns_variables():
    world = world_of(TORCHRUN)
    assert world == World(
        rank=5,
        size=8,
        local_rank=1,
        local_size=4,
        master="gpu1",
        port=29500,
        launcher="torchrun",
        attempt="2",
        is_store_given=True,
    )
    assert world.nodes == 2


def test_torchrun_comes_before_slurm():
    assert world_of(STEP | TORCHRUN).launcher == "torchrun"


def test_a_board_marks_convruns_own_children():
    world = world_of(TORCHRUN | {"CONVRUN_BOARD": "/tmp/x", "CONVRUN_PARENT": "7"})
    assert (world.launcher, world.board) == ("convrun", "/tmp/x")


def test_a_slurm_step():
    world = world_of(STEP)
    assert (world.rank, world.size, world.local_rank, world.local_size) == (3, 4, 1, 2)
    assert (world.master, world.host, world.launcher, world.nodes) == ("node3", "node4", "slurm", 2)
    assert world.name == "rank 3 on node4"


def test_a_step_has_fewer_tasks_than_its_job():
    assert world_of(STEP | {"SLURM_NTASKS": "16"}).size == 4


def test_a_step_without_a_node_list_uses_the_jobs():
    assert world_of(without(STEP, "SLURM_STEP_NODELIST")).master == "node1"


def test_a_batch_script_or_an_salloc_shell_is_alone():
    batch = without(STEP, "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST")
    assert world_of(batch | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).size == 1
    assert world_of(without(batch, "SLURM_PROCID", "SLURM_LOCALID")).launcher == "alone"


def test_a_step_of_one_task_is_alone():
    world = world_of(STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    assert (world.size, world.launcher, world.host) == (1, "alone", "node4")


def test_master_addr_and_port_of_the_user_count_in_a_step():
    world = world_of(STEP | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "4000"})
    assert (world.master, world.port, world.launcher) == ("10.0.0.7", 4000, "slurm")


def test_the_port_is_the_same_for_all_tasks_and_new_after_a_requeue():
    others = STEP | {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURMD_NODENAME": "node3"}
    assert world_of(STEP).port == world_of(others).port
    ports = {port(STEP | {"SLURM_RESTART_COUNT": str(n)}) for n in range(20)} | {port(STEP | {"SLURM_STEP_ID": "1"})}
    assert len(ports) == 21
    assert all(FIRST_PORT <= p < FIRST_PORT + PORTS < 32768 for p in ports)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node[1-4]", "node1"),
        ("gpu[07-12,31],login1", "gpu07"),
        ("gpu[3,5]", "gpu3"),
        ("a1,b[1-2]", "a1"),
        ("r[01-02]n[3-4]", "r01n3"),
        ("dgx-a100-[2-3].site.org", "dgx-a100-2.site.org"),
        ("", ""),
    ],
)
def test_the_first_of_a_host_list(hosts, first):
    assert first_host(hosts) == first


def test_tasks_per_node_are_read_for_this_node():
    tasks = {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
    assert [local_size(tasks | {"SLURM_NODEID": str(n)}) for n in range(4)] == [2, 2, 1, None]


@pytest.mark.parametrize(
    ("environment", "match"),
    [
        (without(TORCHRUN, "MASTER_ADDR", "LOCAL_RANK"), "not LOCAL_RANK, MASTER_ADDR; start with torchrun, or unset"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is set as by torchrun, but not RANK"),
        (TORCHRUN | {"RANK": "eight"}, "RANK is 'eight', not a number"),
        (TORCHRUN | {"RANK": "8"}, "rank 8 of 8"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "local rank 4 of 4"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "2"}, "rank 3 of 2"),
        (without(STEP, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"), "set MASTER_ADDR"),
        (without(STEP, "SLURM_LOCALID"), "SLURM_LOCALID is None"),
    ],
)
def test_variables_that_make_no_sense_are_refused(environment, match):
    with pytest.raises(UsageError, match=match):
        world_of(environment)
