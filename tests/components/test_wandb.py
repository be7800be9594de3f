"""logger/wandb, with W&B's own package in its offline mode: nothing leaves the machine."""

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import wandb

from convrun.errors import PluginError
from convrun.recipe import load_recipe
from convrun.training.run import run


@pytest.fixture(autouse=True)
def no_network_and_no_account(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path))
    yield
    wandb.teardown()


TINY = """
input_size: 32
model: {name: convnext, depths: [1, 1, 1, 1], dims: [4, 8, 8, 8]}
data: {name: synthetic, train_images: 32, val_images: 8, num_classes: 4, workers: 0}
optimizer: {name: adamw, lr: 1e-3}
scheduler: constant
training: {batch_size: 8, epochs: 2}
"""


def trained(folder: Path, keys: str):
    recipe = folder.parent / "tiny.yaml"
    recipe.write_text(f"{TINY}logging: {{every_steps: 1, to: [jsonl, {{name: wandb{keys}}}]}}\n")
    return run(load_recipe(recipe, plugins=False), folder, device="cpu")


def records_in(file: Path) -> list:
    """The records of a .wandb file: a 7-byte header, then LevelDB's log format (blocks of 32 KiB)."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return records


def sent(file: Path) -> tuple[object, list[dict[str, float]]]:
    """The run and the rows in a .wandb file."""
    records = records_in(file)
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    return next(r.run for r in records if r.HasField("run")), rows


def test_rows_reach_wandb_with_their_steps(tmp_path, capfd):
    trained(tmp_path / "run", ", project: tests, mode: offline, tags: [tiny, cpu]")
    file = next(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))
    started, rows = sent(file)
    assert (started.project, sorted(started.tags), started.display_name) == ("tests", ["cpu", "tiny"], "run")
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [row["step"] for row in logged] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    assert [row["train/loss"] for row in rows if "train/loss" in row] == [r["loss"] for r in logged if "lr" in r]
    assert [row["eval/model/top1"] for row in rows if "eval/model/top1" in row] == [
        r["top1"] for r in logged if "top1" in r
    ]
    shown = capfd.readouterr()
    assert "W&B: offline; upload with: wandb sync" in shown.out
    assert "wandb:" not in shown.out + shown.err  # W&B itself keeps quiet: convrun owns the terminal


def test_a_run_that_goes_on_is_the_same_run_at_wandb(tmp_path):
    folder = tmp_path / "run"
    trained(folder, ", mode: offline")
    (folder / "checkpoints" / "step-8.pt").unlink()  # as if it had been killed between the steps 4 and 8
    trained(folder, ", mode: offline")
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime)
    (first, _), (second, rows) = (sent(file) for file in files)
    assert first.run_id == second.run_id == (folder / "wandb_run_id").read_text().strip()
    assert [row["step"] for row in rows] == [5, 6, 7, 8, 8]


def test_disabled_leaves_nothing(tmp_path):
    assert trained(tmp_path / "run", ", mode: disabled").step == 8
    assert not list((tmp_path / "run").glob("wandb/*"))


def test_without_an_account_the_error_says_what_to_do(tmp_path):
    with pytest.raises(PluginError, match=r"logger/wandb cannot start: .*wandb login.*set mode: offline"):
        trained(tmp_path / "run", "")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_without_the_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PluginError, match=r"pip install 'convrun\[wandb\]'"):
        trained(tmp_path / "run", ", mode: offline")
