from pathlib import Path

import pytest

from convrun.launching import shared_folder
from convrun.launching.shared_folder import doubt, file_system_of, why_local

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /dev/shm rw shared:3 - tmpfs tmpfs rw
24 22 0:22 / /home rw master:1 - nfs4 server:/home rw
25 24 0:23 / /home/my\040disk rw - lustre x rw
26 22 0:24 / /fast rw - xfs /dev/nvme0n1 rw
27 22 0:25 / /image rw - overlay overlay rw
""".strip()


@pytest.fixture
def mounts(monkeypatch):
    def read(path, **_):
        assert str(path) == "/proc/self/mountinfo"
        return MOUNTS

    monkeypatch.setattr(shared_folder.Path, "read_text", read)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/etc", "ext4"), ("/home/me/runs", "nfs4"), ("/homestead", "ext4"), ("/home/my disk/run", "lustre"),
        ("/fast/run", "xfs"), ("/dev/shm/x", "tmpfs"),
    ],
)  # fmt: skip
def test_the_innermost_mount_counts(mounts, place, kind):
    assert file_system_of(Path(place)) == kind


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("/tmp/run", "its own /tmp"),
        ("/var/tmp/run", "its own /var/tmp"),
        ("/dev/shm/run", "its own /dev/shm"),
        ("/run/user/0/run", "its own /run"),
        ("/image/run", "inside a container"),
        ("/home/me/run", ""),
        ("/tmpfoo/run", ""),
        ("/fast/run", ""),
    ],
)
def test_what_no_other_node_can_see_is_told_from_what_one_may(mounts, place, why):
    assert why in why_local(Path(place))
    assert bool(why_local(Path(place))) == bool(why)


def test_a_link_to_a_local_folder_is_one(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/dev/shm")
    assert "/dev/shm" in why_local(link / "run") or "/tmp" in why_local(link / "run")


def test_a_disk_of_this_machine_is_only_doubted(mounts):
    assert "is on a disk of this machine (xfs)" in doubt(Path("/fast/run"))
    assert doubt(Path("/home/me/run")) == ""


def test_where_the_kernel_says_nothing_nothing_is_claimed(monkeypatch):
    def read(path, **_):
        raise FileNotFoundError

    monkeypatch.setattr(shared_folder.Path, "read_text", read)
    assert (why_local(Path("/data/run")), doubt(Path("/data/run"))) == ("", "")
