import os
import shlex
import subprocess
import sys

import pytest

from convrun.distributed.meeting.interfaces import address_among, addresses_towards, interface_of, use_interface_of


def test_on_one_host_there_is_nothing_to_choose():
    own, of_master = addresses_towards("127.0.0.1", 9)
    assert (own, of_master) == ("127.0.0.1", "127.0.0.1")
    assert address_among(own, ["127.0.0.1", "127.0.1.1", ""]) == ""


def test_a_host_without_a_way_to_the_master_has_no_address():
    assert addresses_towards("no-host.invalid", 9) == ("", "")


@pytest.mark.parametrize(
    ("own", "of_master", "address"),
    [
        ("10.0.0.2", ["127.0.1.1", "10.0.0.1"], "10.0.0.2"),
        # The master's own name leads it to itself: the others know better.
        ("127.0.1.1", ["127.0.1.1", "127.0.1.1", "10.0.0.1"], "10.0.0.1"),
        ("", ["", "10.0.0.1"], "10.0.0.1"),
    ],
)
def test_the_address_is_the_one_that_other_hosts_see(own, of_master, address):
    assert address_among(own, of_master) == address


def test_the_interface_of_an_address():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


def test_an_interface_that_the_user_has_named_stays():
    chosen, named = {}, {"GLOO_SOCKET_IFNAME": "ib0"}
    use_interface_of("127.0.0.1", chosen)
    use_interface_of("127.0.0.1", named)
    assert (chosen["GLOO_SOCKET_IFNAME"], named["GLOO_SOCKET_IFNAME"]) == ("lo", "ib0")
    nothing = {}
    use_interface_of("", nothing)
    assert nothing == {}


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def two_hosts(tmp_path):
    """Two networks of their own on this machine, joined by a cable; runs a command on one of them.

    As on a fresh Debian each finds its own name at 127.0.1.1 (/etc/hosts), and only there.
    """
    names = [f"convrun-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        made = [ip("netns", "add", name) for name in names]
        made.append(ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "eth0", "netns", names[1]))
    except FileNotFoundError:
        pytest.skip("iproute2 is not installed")
    try:
        if failed := [done.stderr for done in made if done.returncode]:
            pytest.skip(f"this user may not make networks: {failed[0].strip()}")
        for number, name in enumerate(names, 1):
            for arguments in (["addr", "add", f"10.99.0.{number}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                              ["link", "set", "lo", "up"]):  # fmt: skip
                assert ip("-n", name, *arguments).returncode == 0
            other = 3 - number
            hosts = f"127.0.0.1 localhost\n127.0.1.1 host{number}\n10.99.0.{other} host{other}\n"
            (tmp_path / f"hosts-{number}").write_text(hosts)

        def start(number, command, environment):
            script = (
                f"mount --bind {shlex.quote(str(tmp_path))}/hosts-{number} /etc/hosts && hostname host{number} && "
                f"exec {shlex.join(map(str, command))}"
            )
            return subprocess.Popen(
                ["ip", "netns", "exec", names[number - 1], "unshare", "--uts", "--mount", "sh", "-c", script],
                env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

        yield start
    finally:
        for name in names:
            ip("netns", "del", name)


def test_hosts_that_only_know_themselves_at_127_0_1_1_train_together(two_hosts, tiny_file, tmp_path):
    step = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_STEP_NODELIST": "host[1-2]", "SLURM_LOCALID": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "convrun", "run", tiny_file, "--output", tmp_path / "run", "--device", "cpu",
               "--no-plugins"]  # fmt: skip
    processes = [
        two_hosts(rank + 1, command, step | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)}) for rank in (0, 1)
    ]
    said = [process.communicate(timeout=110)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "finished after step 16" in said[0]
