"""Whatever lies in the place of a checkpoint: no code runs, and the answer is a CheckpointError or the very content."""

import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convrun import checkpoints
from convrun.errors import CheckpointError, DamagedCheckpoint
from tests.sealing import sealed

PARTS = {part: None if part == "ema" else {} for part in checkpoints.PARTS}
CONTENT = {
    **PARTS,
    "model": {"a": torch.arange(300.0), "b": torch.ones(2, 3)},
    "state": {"step": 7, "best": [(1.5, 5)], "name": "é"},
}
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return checkpoints.save(tmp_path_factory.mktemp("whole"), 7, CONTENT).read_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "step-7.pt"


def load(path, content):
    """The content, or None if it was refused."""
    path.write_bytes(content)
    try:
        return checkpoints.load(path)
    except CheckpointError:
        return None


def is_the_same(loaded):
    return torch.equal(loaded["model"]["a"], CONTENT["model"]["a"]) and loaded["state"] == CONTENT["state"]


def test_no_truncation_passes(whole, path):
    draws = random.Random(0)
    lengths = {*range(80), *range(len(whole) - 80, len(whole)), *draws.sample(range(len(whole)), 300)}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint):
            checkpoints.load(path)


def records(whole):
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        return file.infolist(), file.start_dir


def test_no_flipped_bit_passes(whole, path):
    """tests/test_checkpoints.py turns over each bit of a smaller one."""
    draws = random.Random(1)
    places = [*draws.sample(range(len(whole)), 500), *range(len(whole) - 80, len(whole))]
    places += [member.header_offset + i for member in records(whole)[0] for i in range(0, 30, 3)]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << draws.randrange(8)
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpoint):
            checkpoints.load(path)


@settings(max_examples=150)
@given(st.data())
def test_no_patchwork_makes_a_traceback(whole, path, data):
    place = data.draw(st.integers(0, len(whole)))
    patch = data.draw(st.binary(max_size=40))
    removed = data.draw(st.integers(0, 200))
    patched = whole[:place] + patch + whole[place + removed :]
    assert (load(path, patched) is not None) == (patched == whole)
    loaded = load(path, sealed(patched))
    assert loaded is None or is_the_same(loaded)


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x93NUMPY"]))
def test_no_bytes_make_a_traceback(path, content, beginning):
    assert load(path, beginning + content) is None
    assert load(path, sealed(beginning + content)) is None


class Reducer:
    def __init__(self, function, *arguments):
        self.found = function, arguments

    def __reduce__(self):
        return self.found


def evils(canary):
    return {
        "os.system": Reducer(os.system, f"touch {canary}"),
        "eval": Reducer(eval, f"open({str(canary)!r}, 'w')"),
        "mkdir": Reducer(os.mkdir, str(canary)),
        "getattr": Reducer(getattr, "text", "upper"),
        "torch.load": Reducer(torch.load, str(canary)),
    }


def archive(pickled, extra=(), compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/version", "3\n")
        for name, content in extra:
            file.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["os.system", "eval", "mkdir", "getattr", "torch.load"])
def test_no_reducer_runs(name, protocol, path, tmp_path):
    evil = evils(tmp_path / "canary")[name]
    pickled = pickle.dumps({**PARTS, "format": checkpoints.FORMAT, "state": evil}, protocol=protocol)
    for content in (pickled, sealed(pickled), sealed(archive(pickled))):
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpoint) as caught:
            checkpoints.load(path)
        assert "weights_only" not in str(caught.value)
        assert "check sum" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [{"format": checkpoints.FORMAT}, [1, 2], None, 3, "x", np.ones(3), np.float32(1), {1, 2}, 2**200, {"a": b"b"}],
)
def test_other_pickles_are_refused(value, protocol, path):
    pickled = pickle.dumps(value, protocol=protocol)
    assert load(path, sealed(pickled)) is None
    assert load(path, sealed(archive(pickled))) is None


def test_torchs_old_format_is_refused(path):
    stream = io.BytesIO()
    torch.save({**CONTENT, "format": checkpoints.FORMAT}, stream, _use_new_zipfile_serialization=False)
    path.write_bytes(sealed(stream.getvalue()))
    with pytest.raises(DamagedCheckpoint, match="File is not a zip file"):
        checkpoints.load(path)


def saved(**parts):
    stream = io.BytesIO()
    torch.save({**CONTENT, "format": checkpoints.FORMAT, **parts}, stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["archive/data/0", "../../escape", "/etc/passwd", "archive/extra"])
def test_extra_members_write_nothing(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO(saved())
    with pytest.warns() if "data/0" in name else pytest.MonkeyPatch.context(), zipfile.ZipFile(stream, "a") as file:
        file.writestr(name, b"x" * 1200)
    loaded = load(path, sealed(stream.getvalue()))
    assert loaded is None or is_the_same(loaded)
    assert list(tmp_path.iterdir()) == []


def test_a_second_record_of_one_name_is_refused(path):
    stream = io.BytesIO(saved())
    with zipfile.ZipFile(stream, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr(file.infolist()[-1].filename, b"x" * 24)
    path.write_bytes(sealed(stream.getvalue()))
    with pytest.raises(DamagedCheckpoint, match="two records of one name"):
        checkpoints.load(path)


def test_a_zip_bomb_is_refused_before_it_is_opened(path):
    path.write_bytes(sealed(archive(b"x", [("archive/data/0", bytes(50 << 20))], zipfile.ZIP_DEFLATED)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DamagedCheckpoint, match="it is compressed"):
        checkpoints.load(path)


def test_records_that_lie_over_one_another_are_refused(whole, path):
    """Every entry of the directory names the same bytes: a small file with a large content."""
    members, start = records(whole)
    entry = whole[start : start + 46 + len(members[0].filename) + len(members[0].extra)]
    count = 3000
    directory = entry * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    path.write_bytes(sealed(whole[:start] + directory + end))
    with pytest.raises(DamagedCheckpoint, match=r"two records of one name|more than its size|damaged"):
        checkpoints.load(path)


@pytest.mark.parametrize("number", [10**6, 2**40, 2**62, 2**63, 2**70, -1, -(2**40)])
def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(number, path):
    """A storage has the size that the pickle says; read so, other memory of the process would be in the weights."""
    before = saved(model={"a": torch.arange(301.0)})
    with zipfile.ZipFile(io.BytesIO(before)) as file:
        members = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    pickled = members.pop("data.pkl")
    assert pickled.count(b"M\x2d\x01") >= 1  # 301, as BININT2
    members = [(f"archive/{name}", value) for name, value in members.items() if name.startswith("data/")]
    digits = pickle.dumps(number, protocol=2)[2:-1]
    assert load(path, sealed(archive(pickled.replace(b"M\x2d\x01", digits), members))) is None
    # In the storage alone: what the tensor itself names is there.
    loaded = load(path, sealed(archive(pickled.replace(b"M\x2d\x01", digits, 1), members)))
    assert loaded is None or torch.equal(loaded["model"]["a"], torch.arange(301.0))
    assert torch.equal(load(path, sealed(archive(pickled, members)))["model"]["a"], torch.arange(301.0))


def test_a_tensor_that_repeats_one_number_is_refused(path):
    path.write_bytes(sealed(saved(model={"a": torch.ones(1).expand(10**12)})))
    with pytest.raises(CheckpointError, match="its tensors are larger than the file"):
        checkpoints.load(path)


def test_lists_of_lists_that_share_do_not_blow_up(path):
    nested = []
    for _ in range(60):
        nested = [nested, nested]
    loaded = load(path, sealed(saved(state={"nested": nested})))
    assert len(loaded["state"]["nested"]) == 2


def test_deep_nesting_is_refused(path):
    depth = 100_000
    pickled = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    assert load(path, sealed(archive(pickled))) is None


def strange_tensors():
    yield torch.ones(2, device="meta")
    yield torch.ones(2).to_sparse()
    yield torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_convrun_never_saves_are_refused(number, path):
    path.write_bytes(sealed(saved(model={"a": [*strange_tensors()][number]})))
    with pytest.raises(CheckpointError, match="is not a checkpoint of a convrun run"):
        checkpoints.load(path)
