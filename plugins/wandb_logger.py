"""Rows of a run to Weights & Biases. Needs `pip install 'convrun[wandb]'`.

Copy this file beside a recipe and list it there:

    plugins: [wandb_logger.py]
    logging: {to: [console, jsonl, {name: wandb, project: my-project}]}
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from convrun.contracts.logger import RunInfo
from convrun.errors import PluginError
from convrun.registry import register


@register("logger", "wandb")
class WandbLogger:
    """Every number of a row to Weights & Biases, drawn over the optimizer step (https://docs.wandb.ai).

    A run that is started again on its folder goes on as the same W&B run. What it computes a second time it sends a
    second time, with the same values.

    project: the W&B project, made if it does not exist
    entity: the W&B user or team; null: the account's own default
    run_name: what W&B calls the run; null: the name of the run folder
    mode: offline: to the run folder, for a later `wandb sync`; disabled: nowhere
    tags: labels to find the run by
    """

    def __init__(
        self,
        run: RunInfo,
        *,
        project: str = "convrun",
        entity: str | None = None,
        run_name: str | None = None,
        mode: Literal["online", "offline", "disabled"] = "online",
        tags: tuple[str, ...] = (),
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise PluginError(f"logger/wandb needs W&B's package ({error}): pip install 'convrun[wandb]'") from error
        try:
            self._run = wandb.init(
                project=project,
                entity=entity,
                name=run_name or run.folder.name,
                id=_run_id(run.folder),
                resume="allow" if mode == "online" else None,
                mode=mode,
                tags=list(tags),
                dir=run.folder,
                config=run.recipe,
                # convrun owns the terminal, and train.log has what it showed.
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, OSError) as error:
            raise PluginError(
                f"logger/wandb cannot start: {str(error).splitlines()[0]} (without a network, set mode: offline and "
                "upload with `wandb sync` later)"
            ) from error
        # W&B's own step only counts up, and a run that goes on from a checkpoint may take some steps again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        run.screen.say(f"W&B: {_place(mode, self._run, run.folder)}")

    def log(self, row: Mapping[str, Any]) -> None:
        """Sends the row as train/loss, eval/ema/top1, ..."""
        prefix = f"eval/{row['weights']}" if row["kind"] == "eval" else row["kind"]
        numbers = {f"{prefix}/{key}": v for key, v in row.items() if key != "step" and isinstance(v, int | float)}
        self._run.log({"step": row["step"], **numbers})

    def close(self) -> None:
        """Waits until what is pending has been sent; a run that failed is marked as failed."""
        self._run.finish(exit_code=1 if sys.exc_info()[0] is not None else 0)


def _run_id(folder: Path) -> str:
    """The id of the folder's W&B run, made at the first start."""
    file = folder / "wandb_run_id"
    if not file.is_file():
        file.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()


def _place(mode: str, wandb_run: Any, folder: Path) -> str:
    if mode == "online":
        return str(wandb_run.url)
    return "off" if mode == "disabled" else f"offline; upload with: wandb sync {folder / 'wandb'}/offline-run-*"
