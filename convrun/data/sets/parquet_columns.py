"""Which columns of a parquet file hold the images and the labels, and what the label column says.

Hubs write `image`, bytes or a struct with a field `bytes`, and `label`, whole numbers whose names stand in the file's
metadata. Others write words, or other names; what plainly is meant is taken. This is where pyarrow is imported, and who
takes it from here gets the cure where it is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convrun.errors import DataError
from convrun.text.lookalikes import composed_names
from convrun.text.wording import listed, nearest

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise DataError(f"parquet files need pyarrow ({missing}); pip install 'convrun[parquet]'") from None


__all__ = ["AUTO", "image_leaf", "label_column", "named_classes", "pa", "pq", "read_labels"]
AUTO = "auto"
IMAGE_NAMES = frozenset({"image", "images", "img", "pixel_values", "picture", "photo", "jpg", "jpeg", "png", "webp"})
LABEL_NAMES = frozenset(
    {
        "label", "labels", "label_id", "label_name", "class", "class_id", "class_name", "class_label", "category",
        "category_id", "target", "targets", "fine_label", "coarse_label", "y",
    }
)  # fmt: skip
MOST_CLASSES = 1_000_000  # a label beyond is an identifier or garbage, and its classes would not fit in memory
Labels = npt.NDArray[np.int32]


# Images -------------------------------------------------------------------------------------------------------------


def image_leaf(path: str, schema: Any, written: str) -> str:
    """The column with the images' bytes, as parquet names it: `image`, or `image.bytes` in a struct.

    Args:
        path: the file, for messages.
        schema: its Arrow schema.
        written: `data.image_column`.

    Raises:
        DataError: there is none, or more than one that may be meant, or it holds no encoded images.
    """
    usable = [name for name in schema.names if _leaf(schema, name)]
    name = _chosen(path, schema, "image_column", written, "image", _plainly_images(schema, usable))
    if leaf := _leaf(schema, name):
        return leaf
    kind = schema.field(name).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    what = "neither bytes nor a struct with bytes"
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        what += ": if these are paths, read the files themselves with data.name=image_folder"
    elif not pa.types.is_struct(value) and not pa.types.is_primitive(value):
        what += ": save images encoded, as the bytes of PNG files say, or pixels in an .npz file (data.name=npz)"
    cure = f"set data.image_column={usable[0] if len(usable) == 1 else 'NAME'}"
    raise DataError(f"{path}: the column {name} is {kind}, {what}; {cure}")


def _leaf(schema: Any, name: str) -> str | None:
    kind = schema.field(name).type
    if _is_bytes(kind):
        return name
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type):
        return f"{name}.bytes"
    return None


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _plainly_images(schema: Any, usable: Sequence[str]) -> list[str]:
    """The usable columns that a name or the metadata calls images; else those that are structs with bytes."""
    features = _features(schema)
    called = [n for n in usable if n.lower() in IMAGE_NAMES or _feature_type(features, n) == "Image"]
    return called or [n for n in usable if pa.types.is_struct(schema.field(n).type)]


# Labels -------------------------------------------------------------------------------------------------------------


def label_column(path: str, schema: Any, written: str) -> str:
    """The column with the labels.

    Raises:
        DataError: there is none, or more than one that may be meant, or it holds neither whole numbers nor text.
    """
    features = _features(schema)
    usable = [n for n in schema.names if _is_label(schema.field(n).type)]
    plain = [n for n in usable if n.lower() in LABEL_NAMES or _feature_type(features, n) == "ClassLabel"]
    name = _chosen(path, schema, "label_column", written, "label", plain)
    if name not in usable:
        others = [n for n in plain if n != name]
        raise DataError(
            f"{path}: the column {name} is {schema.field(name).type}, not one label an image (a whole number or text); "
            f"set data.label_column={others[0] if len(others) == 1 else 'NAME'}"
        )
    return name


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_null)
    return _is_text(kind) or any(test(kind) for test in tests)


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")


def read_labels(path: str, name: str, column: Any) -> tuple[Labels, tuple[str, ...] | None]:
    """The labels of a column: numbers, int32 [n]; of text, positions in the list of words that comes with them.

    Raises:
        DataError: a label is missing, or it is no class.
    """
    if column.null_count:
        raise _no_label(path, name, int(np.flatnonzero(column.is_null().to_numpy())[0]), "null")
    if pa.types.is_dictionary(column.type):  # categories of pandas, say
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        return _words(path, name, column)
    if pa.types.is_null(column.type):  # of a file without rows
        return np.zeros(0, np.int32), None
    values = column.to_numpy()
    if values.dtype.kind == "f" and len(wrong := np.flatnonzero(values != np.rint(values))):  # NaN is among these
        what = f"{path} row {wrong[0]} has {name} {values[wrong[0]]:g}, no class number"
        raise DataError(f"{what}; save whole numbers from 0, or set data.label_column=NAME")
    labels: npt.NDArray[np.int64] = values.astype(np.int64)
    check_range(path, name, labels, MOST_CLASSES, "labels are class numbers; set data.label_column=NAME")
    return labels.astype(np.int32), None


def _words(path: str, name: str, column: Any) -> tuple[Labels, tuple[str, ...]]:
    encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
    try:
        words = tuple(encoded.dictionary.to_pylist())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the column {name} has a label that is not UTF-8 ({error.reason})") from None
    labels: Labels = encoded.indices.to_numpy().astype(np.int32)
    if blank := [number for number, word in enumerate(words) if not word.strip()]:
        raise _no_label(path, name, int(np.flatnonzero(labels == blank[0])[0]), "an empty text")
    return labels, words


def _no_label(path: str, name: str, row: int, found: str) -> DataError:
    return DataError(
        f"{path} row {row} has no label ({found} in the column {name}); leave out rows without one when you save the "
        "file, or set data.label_column=NAME"
    )


def check_range(path: str, name: str, labels: npt.NDArray[Any], classes: int, cure: str) -> None:
    """Raises DataError if a label is not one in 0..classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        if np.all(labels == -1):
            cure = "all are -1: these are test images whose labels are kept back; set data.train and data.val to others"
        raise DataError(f"{path} row {wrong[0]} has {name} {labels[wrong[0]]}, not one in 0..{classes - 1}; {cure}")


def named_classes(schema: Any, name: str) -> tuple[str, ...] | None:
    """What the library `datasets` has written beside the columns: info.features.label.names."""
    feature = _features(schema).get(name)
    names = feature.get("names") if isinstance(feature, dict) else None
    return composed_names(map(str, names)) if isinstance(names, list) and names else None


# Both ---------------------------------------------------------------------------------------------------------------


def _chosen(path: str, schema: Any, key: str, written: str, default: str, plain: Sequence[str]) -> str:
    """The column that is written, or the default, or the only one that plainly is meant."""
    if written != AUTO and written in schema.names:
        return written
    if written == AUTO and default in schema.names:
        return default
    if written == AUTO and len(plain) == 1:
        return plain[0]
    columns = listed([f"{field.name}: {field.type}" for field in schema], 12)
    if written == AUTO and plain:
        what = f"no column {default}, and several that may be meant ({', '.join(plain)})"
        raise DataError(f"{path} has {what}; set data.{key} to one of them, data.{key}={plain[0]} say")
    name = default if written == AUTO else written
    near = plain[0] if len(plain) == 1 else nearest(name, schema.names)
    raise DataError(f"{path} has no column {name} (it has {columns}); set data.{key}={near or 'NAME'}")


def _features(schema: Any) -> dict[str, Any]:
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(text)["info"]["features"] if text else {}
    except (ValueError, LookupError, TypeError):  # another tool's metadata
        return {}
    return features if isinstance(features, dict) else {}


def _feature_type(features: dict[str, Any], name: str) -> Any:
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None
