from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convrun.contracts.data import DataFacts
from convrun.errors import DataError

pytest.importorskip("pyarrow")

from convrun.data.sets.parquet_columns import named_classes
from tests.data.parquet_files import create, encoded, facts, pa, pq

WORDS = ["dog", "cat", "Ä", "cat"]
IMAGES = [encoded(number) for number in range(4)]


def save(root: Path, split: str = "train", features: dict[str, Any] | None = None, **columns: Any) -> None:
    """A file with these columns; images of bytes unless there are others."""
    (root / "data").mkdir(exist_ok=True)
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    pq.write_table(table, root / f"data/{split}-0.parquet")


def train(root: Path, **keys: Any) -> Any:
    return create("train", root, **{"val": None, **keys})


def labels(images: Any) -> list[str]:
    return [images.class_names[images.read(index)[1]] for index in range(len(images))]


# Labels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        pa.array(WORDS),
        pa.array(WORDS, pa.large_string()),
        pa.array(WORDS).dictionary_encode(),
        pa.DictionaryArray.from_arrays([3, 1, 2, 1], ["unused", "cat", "Ä", "dog"]),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_words_are_the_classes_sorted_as_folders_are(tmp_path: Path, column: Any, cached: bool) -> None:
    save(tmp_path, image=IMAGES, label=column)
    save(tmp_path, "validation", image=IMAGES[:2], label=["cat", "dog"])
    images, val = (create(split, tmp_path, cache=cached) for split in ("train", "val"))
    assert images.class_names == val.class_names == ("cat", "dog", "Ä")
    assert (labels(images), labels(val)) == (WORDS, ["cat", "dog"])
    assert images.notes == ()
    assert [note.startswith("val has no image of class Ä, which train has") for note in val.notes] == [True]
    assert facts(tmp_path) == DataFacts(3, 4, 2)


def test_words_of_shards_are_put_together(tmp_path: Path) -> None:
    save(tmp_path, "train-a", image=IMAGES[:2], label=["z", "b"])
    save(tmp_path, "train-b", image=IMAGES[:2], label=["a", "z"])
    save(tmp_path, "train-c", image=pa.array([], pa.binary()), label=pa.array([], pa.null()))
    images = train(tmp_path, train="data/train-*.parquet")
    assert (images.class_names, labels(images)) == (("a", "b", "z"), ["z", "b", "a", "z"])


def test_words_that_only_val_has_are_an_error(tmp_path: Path) -> None:
    save(tmp_path, image=IMAGES, label=WORDS)
    save(tmp_path, "validation", image=IMAGES[:2], label=["cat ", "dog"])
    with pytest.raises(
        DataError, match=r"images of class 'cat ' are in val alone, .*'cat ' in val looks like 'cat' in tr"
    ):
        create("val", tmp_path)


def test_one_word_is_one_class(tmp_path: Path) -> None:
    save(tmp_path, image=IMAGES, label=["a"] * 4)
    with pytest.raises(DataError, match="all training images are of class a, so there is nothing to learn"):
        train(tmp_path)


def test_words_in_one_file_and_numbers_in_another(tmp_path: Path) -> None:
    save(tmp_path, image=IMAGES, label=WORDS)
    save(tmp_path, "validation", image=IMAGES[:2], label=[0, 1])
    with pytest.raises(DataError, match=r"train-0.parquet has labels that are text, .*validation-0.parquet numbers"):
        create("train", tmp_path)


def test_labels_in_other_columns_of_other_files(tmp_path: Path) -> None:
    save(tmp_path, image=IMAGES, label=[0, 1, 0, 1])
    save(tmp_path, "validation", image=IMAGES[:2], labels=[0, 1])
    with pytest.raises(DataError, match=r"has its labels in the column label, .*validation-0.parquet in labels, so"):
        create("train", tmp_path)


def test_names_in_the_metadata_keep_their_order(tmp_path: Path) -> None:
    save(tmp_path, "train",
         {"label": {"names": ["z", "a"], "_type": "ClassLabel"}}, image=IMAGES, label=[0, 1, 1, 0])  # fmt: skip
    images = train(tmp_path)
    assert (images.class_names, labels(images)) == (("z", "a"), ["z", "a", "a", "z"])


@pytest.mark.parametrize("text", [b"not JSON", b"[]", b'{"info": null}', b'{"info": {"features": {"label": null}}}'])
def test_other_metadata_names_no_classes(text: bytes) -> None:
    schema = pa.schema([("label", pa.int64())], metadata={b"huggingface": text})
    assert named_classes(schema, "label") is None


@pytest.mark.parametrize("name", ["labels", "class", "Category", "target", "fine_label"])
def test_a_column_that_plainly_is_the_label_is_taken(tmp_path: Path, name: str) -> None:
    save(tmp_path, id=[7, 8, 9, 10], image=IMAGES, **{name: WORDS})
    assert labels(train(tmp_path)) == WORDS


def test_a_class_label_of_any_name_is_taken(tmp_path: Path) -> None:
    kind = {"names": ["x", "y"], "_type": "ClassLabel"}
    save(tmp_path, features={"breed": kind}, image=IMAGES, width=[1, 2, 3, 4], breed=[0, 1, 0, 1])
    assert labels(train(tmp_path)) == ["x", "y", "x", "y"]


def test_label_is_taken_before_others(tmp_path: Path) -> None:
    save(tmp_path, image=IMAGES, label=[0, 1, 0, 1], label_name=WORDS)
    assert labels(train(tmp_path)) == ["0", "1", "0", "1"]
    assert labels(train(tmp_path, label_column="label_name")) == WORDS


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"fine_label": [0, 1, 0, 1], "coarse_label": [0, 0, 1, 1]},
            r"no column label, and several that may be meant \(fine_label, coarse_label\); set data.label_column to "
            "one of them, data.label_column=fine_label say",
        ),
        ({"breed": WORDS}, r"has no column label \(it has image: binary, breed: string\); set data.label_column=NAME"),
        (
            {"label": [[0], [1], [0, 1], []], "class": WORDS},
            r"the column label is list<.*>, not one label an image .*; set data.label_column=class",
        ),
        ({"label": ["a", None, "b", "a"]}, r"row 1 has no label \(null in the column label\); leave out rows without"),
        ({"label": ["a", "b", "", "a"]}, r"row 2 has no label \(an empty text in the column label\)"),
        ({"label": pa.array([None] * 4, pa.null())}, r"row 0 has no label \(null in the column label\)"),
        ({"label": [-1] * 4}, "all are -1: these are test images whose labels are kept back"),
        ({"label": [b"a", b"b", b"a", b"b"]}, "the column label is binary, not one label an image"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    save(tmp_path, image=IMAGES, **columns)
    with pytest.raises(DataError, match=message):
        train(tmp_path)


# Images -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["img", "pixel_values", "jpg", "Image"])
def test_a_column_that_plainly_holds_the_images_is_taken(tmp_path: Path, name: str) -> None:
    save(tmp_path, thumbnail=[b""] * 4, **{name: IMAGES}, label=WORDS)
    assert train(tmp_path).read(2)[0] == IMAGES[2]


@pytest.mark.parametrize("name", ["scan", "leaf"])
def test_the_only_column_that_the_metadata_or_its_form_calls_images(tmp_path: Path, name: str) -> None:
    struct = [{"bytes": content, "path": "x"} for content in IMAGES]
    features = {"scan": {"_type": "Image"}} if name == "scan" else None
    save(tmp_path, features=features, **{name: struct}, key=[b"x"] * 4, label=WORDS)
    assert train(tmp_path).read(3)[0] == IMAGES[3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"img": IMAGES, "jpg": IMAGES},
            r"no column image, and several that may be meant \(img, jpg\); set data.im",
        ),
        ({"x": IMAGES}, r"has no column image \(it has label: string, x: binary\); set data.image_column=NAME"),
        (
            {"image": [[[0, 1], [2, 3]]] * 4},
            r"the column image is list<.*>, neither bytes nor a struct with bytes: save images encoded, .*name=npz\)",
        ),
        (
            {"image": ["a.png"] * 4, "img": IMAGES},
            r"the column image is string, .*: if these are paths, read the files themselves with "
            "data.name=image_folder; set data.image_column=img",
        ),
        ({"image": [{"path": "a.png"}] * 4}, r"the column image is struct<path: string>, neither bytes nor a struct"),
    ],
)
def test_images_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    save(tmp_path, label=WORDS, **columns)
    with pytest.raises(DataError, match=message):
        train(tmp_path)


def test_a_train_split_alone_has_an_empty_val(tmp_path: Path) -> None:
    save(tmp_path, image=IMAGES, label=WORDS)
    for cached in (True, False):
        val = create("val", tmp_path, val=None, cache=cached)
        assert (len(val), val.class_names, val.notes) == (0, ("cat", "dog", "Ä"), ())
    assert facts(tmp_path, val=None) == DataFacts(3, 4, 0)
