from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convrun.components.data import DataFacts
from convrun.data.feed import TrainFeed
from convrun.data.order import MicroBatches
from convrun.errors import DataError, KeyProblem
from convrun.registry import registry

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from convrun.data import parquet, parquet_copy  # noqa: E402

CLASSES = ("ant", "bee", "çat")
COLUMNS = "image", "label"
TRAIN_ROWS = (230, 105)  # row groups of 100, 100, 30 and of 100, 5


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CONVRUN_CACHE", str(folder))
    return folder / "parquet"


def encoded(number: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), kind)
    return file.getvalue()


def features(classes: Sequence[str] | None, label: str = "label") -> dict[bytes, bytes]:
    """What the library `datasets` writes."""
    kind = {"names": classes, "_type": "ClassLabel"} if classes else {"dtype": "int64", "_type": "Value"}
    text = json.dumps({"info": {"features": {"image": {"_type": "Image"}, label: kind}}})
    return {b"huggingface": text.encode()}


def write(
    path: Path,
    contents: Sequence[bytes | None],
    labels: Any = None,
    *,
    classes: Sequence[str] | None = CLASSES,
    names: tuple[str, str] = COLUMNS,
    plain: bool = False,
) -> Path:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(contents)]
    images = pa.array(contents, pa.large_binary()) if plain else pa.array(rows, struct)
    column = pa.array([number % 3 for number in range(len(contents))] if labels is None else labels)
    table = pa.table(dict(zip(names, (images, column), strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(features(classes, names[1])), path, row_group_size=100)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """335 training images in two shards, 4 for validation, 6 for testing."""
    start = 0
    for shard, rows in enumerate(TRAIN_ROWS):
        contents = [encoded(number, "JPEG" if number % 5 == 0 else "PNG") for number in range(start, start + rows)]
        write(tmp_path / f"data/train-{shard:05}-of-00002.parquet", contents)
        start += rows
    write(tmp_path / "data/validation-00000-of-00001.parquet", [encoded(1000 + number) for number in range(4)])
    write(tmp_path / "data/test-00000-of-00001.parquet", [encoded(2000 + number) for number in range(6)])
    return tmp_path


def create(split: str, root: Path, **keys: Any) -> Any:
    component = registry.find("data", "parquet")
    return component.create(split, **component.keys.check({"root": str(root), **keys}))


def facts(root: Path | str, name: str = "facts", **keys: Any) -> DataFacts:
    component = registry.find("data", "parquet")
    own = {key.name: keys.get(key.name, key.default) for key in component.own_keys}
    found = component.meta[name](**{**own, "root": str(root)})
    assert isinstance(found, DataFacts)
    return found


def rows_of(*paths: Path) -> list[tuple[bytes, int]]:
    """Read without a line of convrun's."""
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return [(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").tobytes(), row["label"]) for row in rows]


def loaded(images: Any, order: Sequence[int] | None = None) -> list[tuple[bytes, int]]:
    pairs = [images.load(index) for index in (range(len(images)) if order is None else order)]
    return [(image.tobytes(), label) for image, label in pairs]


# What it gives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_images_and_labels_equal_a_direct_reading_in_any_order(root: Path, cached: bool) -> None:
    images = create("train", root, cache=cached)
    expected = rows_of(*sorted(root.glob("data/train-*")))
    assert len(images) == len(expected) == sum(TRAIN_ROWS)
    assert loaded(images) == expected
    order = random.Random(0).sample(range(len(expected)), len(expected))
    assert loaded(images, order) == [expected[index] for index in order]
    image, label = images.load(334)
    assert (image.mode, type(label), images.class_names) == ("RGB", int, CLASSES)


def test_places_name_shard_and_row(root: Path) -> None:
    images = create("train", root, cache=False)
    assert images.place(229) == f"{root}/data/train-00000-of-00002.parquet row 229"
    assert images.place(230) == f"{root}/data/train-00001-of-00002.parquet row 0"


def test_val_may_be_the_test_split(root: Path) -> None:
    images = create("val", root, val="data/test-*.parquet")
    assert loaded(images) == rows_of(root / "data/test-00000-of-00001.parquet")


def test_files_come_in_the_order_of_the_list_each_once(root: Path) -> None:
    names = ["data/train-00001-of-00002.parquet", "data/train-*.parquet"]
    images = create("train", root, train=names)
    assert loaded(images) == rows_of(*sorted(root.glob("data/train-*"), reverse=True))


def test_a_plain_column_of_bytes_under_other_names(tmp_path: Path) -> None:
    contents = [encoded(number) for number in range(5)]
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-0.parquet", contents, names=("img", "fine_label"), plain=True)
    for cached in (True, False):
        images = create("train", tmp_path, image_column="img", label_column="fine_label", cache=cached)
        assert [image.tobytes() for image, _ in map(images.load, range(5))] == [
            Image.open(io.BytesIO(content)).tobytes() for content in contents
        ]
        assert images.class_names == CLASSES


def test_a_shard_without_rows_is_passed_over(root: Path) -> None:
    write(root / "data/train-00000-of-00000.parquet", [], pa.array([], pa.int64()))
    assert loaded(create("train", root)) == rows_of(*sorted(root.glob("data/train-*-of-00002.parquet")))


@pytest.mark.parametrize("classes", [None, []])
def test_without_names_the_labels_count_the_classes(tmp_path: Path, classes: list[str] | None) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-0.parquet", [encoded(0)] * 4, [0, 1, 2, 4], classes=classes)
    assert create("val", tmp_path).class_names == ("0", "1", "2", "3", "4")
    assert facts(tmp_path) == DataFacts(5, 4, 4)
    assert facts(tmp_path, num_classes=9) == DataFacts(9, 4, 4)  # the labels cannot show that there are not
    with pytest.raises(DataError, match=r"num_classes is 3, found 5; .* set data.num_classes=5 data.train_images=4 "):
        create("train", tmp_path, num_classes=3)


@pytest.mark.parametrize("text", [b"not JSON", b"[]", b'{"info": null}', b'{"info": {"features": {"label": null}}}'])
def test_other_metadata_names_no_classes(text: bytes) -> None:
    schema = pa.schema([("label", pa.int64())], metadata={b"huggingface": text})
    assert parquet._named_classes(schema, "label") is None


def test_facts(root: Path) -> None:
    assert facts(root) == facts(root, "measure") == DataFacts(3, 335, 4)
    numbers = {"num_classes": 9, "train_images": 8, "val_images": 7}
    assert facts("/nowhere", **numbers) == DataFacts(9, 8, 7)
    message = (
        f"{root} is not what the recipe declares: num_classes is 9, found 3; train_images is 8, found 335; val_images "
        "is 7, found 4; check the data, or set data.num_classes=3 data.train_images=335 data.val_images=4"
    )
    for look in (lambda: create("val", root, **numbers), lambda: facts(root, "measure", **numbers)):
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            look()
    with pytest.raises(KeyProblem, match=r"is empty; set data.root=FOLDER"):
        facts(" ")


# Workers and memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_the_number_of_workers_changes_nothing(root: Path, cached: bool) -> None:
    images = create("train", root, cache=cached)
    images.load(0)  # what this process has open goes into forked workers

    def batches(workers: int) -> list[Any]:
        order = MicroBatches(seed=0, images=335, batch_size=64, micro_batch=16, end_step=7)
        with TrainFeed(images, order, [], input_size=8, workers=workers) as feed:
            return [(b.step, b.number, b.images.numpy().tobytes(), b.labels.tolist()) for b in feed]

    alone = batches(0)
    assert len(alone) == 28
    assert batches(1) == batches(2) == alone


@pytest.mark.parametrize("cached", [True, False])
def test_it_pickles_into_a_spawned_process_without_the_images(root: Path, cached: bool) -> None:
    images = create("train", root, cache=cached)
    expected = loaded(images)
    held = sum(path.stat().st_size for path in root.glob("data/train-*"))
    assert len(pickle.dumps(images)) < 4 * len(images) + 2000 < held / 10
    assert loaded(pickle.loads(pickle.dumps(images))) == expected
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        image, label = pool.submit(images.load, 333).result()
    assert (image.tobytes(), label) == expected[333]


@pytest.mark.parametrize("cached", [True, False])
def test_memory_stays_bounded(tmp_path: Path, cached: bool) -> None:
    content = np.random.default_rng(0)
    for split, rows in (("train", 2000), ("validation", 1)):
        write(tmp_path / f"data/{split}-0.parquet", [content.bytes(10_000) for _ in range(rows)])
    # 20 MB of images, 1 MB a row group; pyarrow counts what it allocates, and not what it maps.
    script = f"""
import sys, pyarrow as pa
from convrun.data.parquet import scan_splits
from convrun.data.parquet_copy import RowGroups, with_copies
shard, = scan_splits({str(tmp_path)!r}, {{"train": "data/train-0.parquet"}}, "image", "label")[1]["train"]
source = with_copies([shard])[0] if {cached} else RowGroups(shard.path, shard.column)
assert sum(len(source.read(row)) for row in range(0, 2000, 50)) == 400_000
print(pa.default_memory_pool().max_memory())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000_000


# Copies -------------------------------------------------------------------------------------------------------------


def test_copies_are_made_once_and_said_once(root: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    create("train", root)
    made = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.arrow")}
    assert len(made) == 2
    message = f"copying 2 parquet files of {root}/data to {cache}, once (0.1 MB)"
    assert [record.getMessage() for record in caplog.records] == [message]
    create("train", root)
    assert {path.name: path.stat().st_mtime_ns for path in cache.glob("*.arrow")} == made
    assert len(caplog.records) == 1
    assert sorted(path.name for path in cache.iterdir()) == [".lock", *sorted(made)]


def test_without_cache_nothing_is_written(root: Path, cache: Path) -> None:
    create("train", root, cache=False).load(0)
    assert not cache.exists()


def test_a_changed_file_gets_a_new_copy(root: Path, cache: Path) -> None:
    create("val", root)
    path = root / "data/validation-00000-of-00001.parquet"
    write(path, [encoded(3000 + number) for number in range(4)])
    os.utime(path, ns=(0, 10**18))
    assert loaded(create("val", root)) == rows_of(path)
    assert len(list(cache.glob("*.arrow"))) == 2


def test_processes_that_want_the_copies_at_once_share_them(root: Path, cache: Path) -> None:
    script = f"""
from convrun.registry import registry
component = registry.find("data", "parquet")
images = component.create("train", **component.keys.check({{"root": {str(root)!r}}}))
print(sum(images.load(index)[1] for index in range(len(images))))
"""
    with parquet_copy._one_at_a_time(cache):
        runs = [subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True) for _ in range(3)]
        time.sleep(3)  # enough for all of them to have found that the copies are missing
        assert [run.poll() for run in runs] == [None] * 3
    results = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len({out for out, _ in results}) == 1
    assert sum("copying 2 parquet files" in err for _, err in results) == 1
    assert sorted(path.suffix for path in cache.iterdir()) == ["", ".arrow", ".arrow"]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVRUN_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert parquet_copy.cache_folder() == Path("/a/parquet")
    monkeypatch.delenv("CONVRUN_CACHE")
    assert parquet_copy.cache_folder() == Path("/b/convrun/parquet")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert parquet_copy.cache_folder() == Path("/c/.cache/convrun/parquet")


def test_no_room_for_the_copies(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = rf"written to {cache}: they take 0.1 MB, and the disk has 0.0 MB free; free .* CONVRUN_CACHE, or set data"
    with pytest.raises(DataError, match=message):
        create("train", root)
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_write_that_fails_leaves_nothing_behind(root: Path, cache: Path) -> None:
    # A limit on the size of files fails as a full disk does, in the midst of a write.
    script = f"""
import resource
from convrun.data.parquet import scan_splits
from convrun.data.parquet_copy import with_copies
shards = scan_splits({str(root)!r}, {{"train": "data/train-*.parquet"}}, "image", "label")[1]["train"]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with_copies(shards)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"DataError: copies of the parquet files cannot be written to {cache}: File too large; free" in done.stderr
    assert [path.name for path in cache.iterdir()] == [".lock"]


def test_a_cache_folder_that_cannot_be_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").write_text("")
    monkeypatch.setenv("CONVRUN_CACHE", str(root / "file"))
    with pytest.raises(DataError, match=r"cannot be written to .*/file/parquet: Not a directory; free"):
        create("val", root)


def test_drafts_of_killed_processes_go_and_those_of_living_ones_stay(root: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / ".old.draft").touch()
    (cache / ".new.draft").touch()
    os.utime(cache / ".old.draft", (0, 0))
    create("val", root)
    assert [path.name for path in cache.glob(".*.draft")] == [".new.draft"]


def test_damaged_copies_are_named(root: Path, cache: Path) -> None:
    create("val", root)
    (copy,) = cache.glob("*.arrow")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-20])
    images = create("val", root)
    with pytest.raises(DataError, match=rf"the copy {copy} cannot be read: .*; delete it, and the next start makes it"):
        images.load(0)
    with pa.OSFile(str(copy), "wb") as file, pa.ipc.new_file(file, pa.schema([("image", pa.large_binary())])) as writer:
        writer.write_batch(pa.record_batch([pa.array([b"x"], pa.large_binary())], ["image"]))
    with pytest.raises(DataError, match="it holds 1 of 4 images; delete it"):
        images.load(0)
    copy.unlink()
    with pytest.raises(DataError, match="No such file or directory; delete it, and the next start makes it"):
        images.load(0)


# What is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"root": "{root}/gone"}, r"the folder {root}/gone does not exist; set data.root=FOLDER"),
        ({"root": "{root}/data"}, r"no file in {root}/data matches data/train-\*.parquet \(it has test-00000.*, …\); "),
        ({"val": "x/*.parquet"}, r"matches x/\*.parquet \(it has data/test-.*, …\); set data.val=PATTERN or data.root"),
        ({"train": []}, r"data.train is an empty list; set data.train=PATTERN"),
        (
            {"image_column": "imge"},
            r"train-0.* has no column imge \(it has image, label\); set data.image_column=image",
        ),
        ({"label_column": "coarse"}, r"has no column coarse \(it has image, label\); set data.label_column=NAME"),
        (
            {"image_column": "label"},
            r"the column label is int64, neither bytes nor a struct with bytes; set data.image",
        ),
        ({"label_column": "image"}, r"the column image is struct<.*>, not integers; set data.label_column=NAME"),
    ],
)
def test_keys_that_fit_no_file(root: Path, keys: dict[str, Any], message: str) -> None:
    keys = {key: value.format(root=root) if isinstance(value, str) else value for key, value in keys.items()}
    with pytest.raises(DataError, match=message.format(root=root)):
        create("train", Path(keys.pop("root", root)), **keys)


def test_a_root_without_parquet_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"matches data/train-\*.parquet \(it has no .parquet file\); set data.train="):
        facts(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "row-0.parquet cannot be read as parquet: .*; fetch it again"),
        (b"something else entirely", "cannot be read as parquet: .*; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git's pointer to the file .git lfs pull"),
    ],
)
def test_files_that_are_no_parquet(root: Path, content: bytes, message: str) -> None:
    (root / "data/row-0.parquet").write_bytes(content)
    with pytest.raises(DataError, match=message):
        facts(root, train="data/row-0.parquet")


def test_a_truncated_shard(root: Path) -> None:
    path = root / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: .*magic bytes.*; fetch it again$"):
        create("val", root)


@pytest.mark.parametrize("cached", [True, False])
def test_a_shard_damaged_in_the_midst(root: Path, cached: bool) -> None:
    path = root / "data/train-00001-of-00002.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)  # the images' first page; footer and labels lie behind
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path} cannot be read as parquet: .*; fetch it again$"):
        create("train", root, cache=cached).load(230)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 2, 0], "row-0.parquet row 1 has no label .null in the column label."),
        ([0, 1, 3, 0], r"row-0.parquet row 2 has label 3, not one in 0\.\.2; the files name no more classes"),
        ([0, 1, 2, -1], r"row 3 has label -1, not one in 0\.\."),
        ([0, 10**9, 2, 1], r"row 1 has label 1000000000, not one in 0\.\.999999; labels are class numbers"),
        (pa.array([2**64 - 1, 0, 0, 0], pa.uint64()), "row 0 has label -1"),
        ([0.0, 1.0, 2.0, 0.0], "the column label is double, not integers; set data.label_column=NAME"),
    ],
)
def test_labels_that_are_wrong(root: Path, labels: Any, message: str) -> None:
    write(root / "data/row-0.parquet", [encoded(number) for number in range(4)], labels)
    with pytest.raises(DataError, match=message):
        facts(root, val="data/row-0.parquet")


@pytest.mark.parametrize(
    ("classes", "difference"),
    [(("ant", "bee"), "3 and 2"), (("ant", "wasp", "çat"), "label 1 is 'bee' in one, 'wasp' in the other")],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_class_names_that_differ(root: Path, split: str, classes: Sequence[str], difference: str) -> None:
    write(root / "data/row-0.parquet", [encoded(0)], classes=classes)
    first = root / "data/train-00000-of-00002.parquet"
    message = rf"^{first} and .*row-0.parquet name other classes \({difference}\), .*; set data.train and data.val"
    patterns = {"train": ("data/train-*.parquet", "data/row-0.parquet")} if split == "train" else {"val": "data/row-*"}
    with pytest.raises(DataError, match=message):
        facts(root, **patterns)


def test_a_split_without_rows(root: Path) -> None:
    write(root / "data/row-0.parquet", [], pa.array([], pa.int64()))
    with pytest.raises(DataError, match=r"the val split is empty: no row in .*row-0.parquet; set data.val=PATTERN"):
        create("train", root, val="data/row-0.parquet")


@pytest.mark.parametrize("cached", [True, False])
def test_a_path_without_bytes(root: Path, cached: bool) -> None:
    contents: list[bytes | None] = [encoded(number) for number in range(120)]
    contents[110] = None
    path = write(root / "data/row-0.parquet", contents)
    with pytest.raises(DataError, match=f"^{path} row 110 has no image bytes .*data.name=image_folder$"):
        create("val", root, val="data/row-0.parquet", cache=cached).load(110)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(0)[:60]])
def test_an_image_that_cannot_be_decoded(root: Path, content: bytes) -> None:
    path = write(root / "data/row-0.parquet", [encoded(0), content])
    images = create("val", root, val="data/row-0.parquet")
    with pytest.raises(DataError, match=f"^split val, image {path} row 1 cannot be decoded: "):
        images.load(1)


def test_without_pyarrow_the_cure_is_the_extra(root: Path) -> None:
    script = f"""
import sys
sys.modules["pyarrow"] = None
from convrun.registry import registry
component = registry.find("data", "parquet")
component.create("train", **component.keys.check({{"root": {str(root)!r}}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "DataError: parquet files need pyarrow" in done.stderr
    assert done.stderr.strip().endswith("pip install 'convrun[parquet]'")


# A run --------------------------------------------------------------------------------------------------------------

RECIPE = """
name: tiny
input_size: 8
model: {{name: convnext, depths: [1, 1, 1, 1], dims: [4, 4, 4, 4], patch_size: 1, kernel_size: 3}}
data: {{name: parquet, root: {root}, workers: 1}}
augmentations:
  - {{name: horizontal_flip}}
optimizer: {{name: adamw, lr: 1e-3}}
scheduler: {{name: constant}}
training: {{steps: 3, batch_size: 64, micro_batch: 32}}
"""


def test_a_recipe_validates_and_trains(root: Path) -> None:
    from convrun.recipe import load_recipe
    from convrun.training.run import run

    path = root / "tiny.yaml"
    path.write_text(RECIPE.format(root=root))
    command = [sys.executable, "-m", "convrun", "validate", str(path), "--data"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train: 335 images of 3 classes (ant ... çat); first and last are 8 × 8" in done.stdout
    outcome = run(load_recipe(path), root / "out", device="cpu")
    rows = [json.loads(line) for line in (root / "out/metrics.jsonl").read_text().splitlines()]
    assert outcome.step == max(row["step"] for row in rows) == 3
