"""Whether two runs are the same: weights byte for byte, the last checkpoint, the metrics, what TensorBoard shows."""

import json
import logging
from pathlib import Path
from typing import Any

# What a clock measured.
CLOCKS = frozenset({"images_per_second", "data_wait", "checkpoint_wait"})


def differences(run: Path, reference: Path) -> list[str]:
    """What is not as in the reference; empty if all is."""
    found = [*_weights(run, reference), *_metrics(run, reference), *_checkpoint(run, reference)]
    found += _tensorboard(run, reference)
    if _lines(run / "skipped_images.jsonl") != _lines(reference / "skipped_images.jsonl"):
        found.append("skipped_images.jsonl differs")
    if drafts := [path.name for path in run.rglob("*.draft")]:
        found.append(f"drafts are left behind: {drafts[0]}")
    if json.loads((run / "status.json").read_text())["state"] != "finished":
        found.append("status.json does not say finished")
    return found


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what a clock measured; a torn line raises ValueError."""
    text = (run / "metrics.jsonl").read_text()
    if text and not text.endswith("\n"):
        raise ValueError("metrics.jsonl ends in half a line")
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in text.splitlines()]


def _weights(run: Path, reference: Path) -> list[str]:
    names = sorted(path.name for path in (reference / "weights").iterdir())
    if names != sorted(path.name for path in (run / "weights").iterdir()):
        return ["other files in weights/"]
    same = [(run / "weights" / n).read_bytes() == (reference / "weights" / n).read_bytes() for n in names]
    return [f"weights/{name} differs" for name, is_same in zip(names, same, strict=True) if not is_same]


def _metrics(run: Path, reference: Path) -> list[str]:
    try:
        ours, theirs = rows(run), rows(reference)
    except ValueError as error:
        return [f"metrics.jsonl: {error}"]
    if ours == theirs:
        return []
    first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return [f"metrics.jsonl: {len(ours)} rows instead of {len(theirs)}, row {first + 1} is the first that differs"]


def _checkpoint(run: Path, reference: Path) -> list[str]:
    import torch

    from convrun import checkpoints

    ours, theirs = (_flat(checkpoints.load((f / "checkpoints" / "latest").resolve())) for f in (run, reference))
    # The recipe names the folder of its images; everything else must be the same.
    ours, theirs = ({k: v for k, v in c.items() if not k.startswith("/recipe")} for c in (ours, theirs))
    if list(ours) != list(theirs):
        return ["the last checkpoint holds other things"]
    same = {k: torch.equal(ours[k], v) if isinstance(v, torch.Tensor) else ours[k] == v for k, v in theirs.items()}
    return [f"the last checkpoint differs in {key}" for key, is_same in same.items() if not is_same][:1]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return {path: value} if items is None else {k: v for i, x in items for k, v in _flat(x, f"{path}/{i}").items()}


def _tensorboard(run: Path, reference: Path) -> list[str]:
    return [] if _scalars(run) == _scalars(reference) else ["TensorBoard shows something else"]


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports each purge, which is what is looked at
    shown = EventAccumulator(str(run / "tensorboard"), size_guidance={SCALARS: 0})
    shown.Reload()
    tags = [tag for tag in shown.Tags()["scalars"] if tag.rpartition("/")[2] not in CLOCKS]
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in sorted(tags)}


def _lines(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines()) if path.exists() else []
