from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convrun.contracts.data import BadImage
from convrun.data.order import TrainingOrder, replacements
from convrun.data.pipeline import EvaluationBatches, TrainingBatches
from convrun.data.sample import REPLACEMENTS, Tolerance
from convrun.data.sets.synthetic import SyntheticImages
from convrun.data.skipped import SkippedImage, SkippedImages
from convrun.errors import DataError
from tests.data.reading import load
from tests.data.steps import each

SKIP = Tolerance(skips_bad_images=True)
BAD = (3, 4, 11)


class Damaged(SyntheticImages):
    """26 images; some cannot be read."""

    def __init__(self, *bad: int, split: str = "train", count: int = 26) -> None:
        super().__init__(split, count, 3, 8)
        self.split, self.bad = split, bad

    def read(self, index: int) -> tuple[Any, int]:
        if index in self.bad:
            raise BadImage("it is torn")
        return super().read(index)


def feed(
    images: Any, start: int = 0, workers: int = 0, skipped: list[Any] | None = None, **keys: Any
) -> TrainingBatches:
    order = TrainingOrder(
        seed=3, images=len(images), batch_size=8, micro_batch=4, start_step=start, end_step=6  # two epochs
    )  # fmt: skip
    keys = {"tolerance": SKIP, "on_skipped": (skipped if skipped is not None else []).extend, **keys}
    return TrainingBatches(images, order, [], input_size=8, workers=workers, **keys)


def rows(batches: Any) -> list[tuple[Any, ...]]:
    return [(b.step, b.number, b.images.numpy().tobytes(), b.labels.tolist()) for b in batches]


def test_by_default_the_first_bad_image_ends_the_run() -> None:
    message = r"^split train, image synthetic train image \d+ cannot be decoded: it is torn; .* data.bad_images=skip$"
    with pytest.raises(DataError, match=message):
        list(each(feed(Damaged(*BAD), tolerance=Tolerance())))


def test_another_image_takes_its_place() -> None:
    images, skipped = Damaged(*BAD), []
    seen = set()
    for position, batch in zip(feed(images).order, each(feed(images, skipped=skipped)), strict=True):
        for pixels, label, index in zip(batch.images, batch.labels, position.indices.tolist(), strict=True):
            drawn = [index, *replacements(3, position.epoch, index, 26, REPLACEMENTS)]
            shown = next(number for number in drawn if number not in BAD)
            image, expected_label = load(images, shown)
            assert label == expected_label
            assert np.array_equal(pixels.permute(1, 2, 0), image)
            seen |= set(drawn[: drawn.index(shown)])
    assert seen == set(BAD), "the test would show nothing"
    assert {image.number for image in skipped} == seen
    assert {image.reason for image in skipped} == {"it is torn"}


def test_neither_workers_nor_a_start_in_the_middle_change_the_replacement() -> None:
    images, skipped = Damaged(*BAD), {}
    alone = rows(each(feed(images, skipped=skipped.setdefault(0, []))))
    for workers in (1, 2):
        with feed(images, workers=workers, skipped=skipped.setdefault(workers, [])) as batches:
            assert rows(each(batches)) == alone
    assert skipped[0] == skipped[1] == skipped[2] != []
    for start in range(1, 6):
        assert rows(each(feed(images, start))) == [row for row in alone if row[0] >= start]


def test_replacements_are_others_and_differ_by_epoch_and_seed() -> None:
    drawn = [replacements(seed, epoch, 5, 1000, 10) for seed in range(3) for epoch in range(3)]
    assert all(len(set(numbers) - {5}) == 10 for numbers in drawn)
    assert len({tuple(numbers) for numbers in drawn}) == 9
    assert sorted(replacements(0, 0, 1, 3, 10)) == [0, 2]
    assert replacements(0, 0, 0, 1, 10) == []


def test_a_replacement_is_augmented_by_the_draws_of_the_sample_it_replaces() -> None:
    drawn: list[float] = []

    def note(image: Image.Image, draws: Any) -> Image.Image:
        drawn.append(draws.random())
        return image

    order = TrainingOrder(seed=3, images=26, batch_size=8, micro_batch=8, end_step=3)
    for images in (Damaged(), Damaged(*BAD)):
        list(each(TrainingBatches(images, order, [note], input_size=8, tolerance=SKIP)))
    assert drawn[:24] == drawn[24:]


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_are_gone_are_not_skipped_image_by_image(workers: int) -> None:
    message = (
        r"^split train: of 11 images drawn at random none can be read, the last is synthetic train image \d+: it is"
    )
    with pytest.raises(DataError, match=message), feed(Damaged(*range(26)), workers=workers) as batches:
        next(each(batches))


def test_wrong_labels_and_bugs_are_not_skipped() -> None:
    class Wrong(Damaged):
        def read(self, index: int) -> tuple[Any, int]:
            return super().read(index)[0], 7

    class Buggy(Damaged):
        def read(self, index: int) -> tuple[Any, int]:
            raise KeyError(index)

    for images, message in ((Wrong(), "has label 7"), (Buggy(), "cannot be loaded: KeyError")):
        with pytest.raises(DataError, match=message):
            next(each(feed(images)))


def test_a_plugins_operating_system_error_is_a_bad_image() -> None:
    class Plain(Damaged):
        def read(self, index: int) -> tuple[Any, int]:
            if index in self.bad:
                return Image.open("/nowhere/x.png"), 0
            return super().read(index)

    skipped: list[Any] = []
    list(each(feed(Plain(*BAD), skipped=skipped)))
    assert {(image.number, image.reason) for image in skipped} == {(n, "No such file or directory") for n in BAD}


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_counts_the_others_once(workers: int) -> None:
    images, skipped = Damaged(0, 1, 2, 7, split="val", count=17), []
    keys = {"input_size": 8, "batch_size": 3, "tolerance": SKIP, "on_skipped": skipped.extend}
    with EvaluationBatches(images, Image.Image.copy, workers=workers, **keys) as batches:
        found = [
            (pixels.permute(1, 2, 0).numpy().tobytes(), int(label))
            for batch in batches
            for pixels, label in zip(batch.images, batch.labels, strict=True)
        ]
    assert found == [(load(images, i)[0].tobytes(), i % 3) for i in range(17) if i not in images.bad]
    assert skipped == [SkippedImage("val", i, f"synthetic val image {i}", "it is torn") for i in images.bad]
    with pytest.raises(DataError, match="split val, image synthetic val image 0 cannot be decoded"):
        next(iter(EvaluationBatches(images, Image.Image.copy, input_size=8, batch_size=3)))


def bad(number: int, split: str = "train") -> SkippedImage:
    return SkippedImage(split, number, f"a/{number}.png", "torn")


def test_the_list_has_each_image_once_through_any_number_of_starts(tmp_path: Path) -> None:
    path, said = tmp_path / "list.jsonl", []
    for _ in range(2):
        images = SkippedImages({"train": 1000, "val": 100}, 5, path, said.append)
        images.add([bad(3), bad(4), bad(3)])
        images.add([bad(3), bad(3, "val")])
    expected = [bad(3), bad(4), bad(3, "val")]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [vars(image) for image in expected]
    assert said == [f"skipped: split {image.split}, image {image.place}: torn" for image in expected]
    assert images.summary() == f"2 train images and 1 val images could not be read and were skipped: see {path}"
    assert SkippedImages({"train": 10}, 5).summary() == ""


def test_half_a_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    SkippedImages({"train": 100}, 9, path).add([bad(1), bad(2)])
    whole = path.read_bytes()
    for cut in range(0, len(whole), 9):
        path.write_bytes(whole[:cut])
        SkippedImages({"train": 100}, 9, path).add([bad(1), bad(2)])
        # A line that only lacks its end counts as written; the next image writes the list anew.
        SkippedImages({"train": 100}, 9, path).add([bad(3)])
        assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("limit", "images", "allowed"), [(2, 1000, 2), (0.01, 1000, 10), (0.01, 99, 1), (0.5, 5, 2), (0.001, 20_000, 20)]
)
def test_more_than_the_limit_ends_the_run(limit: float, images: int, allowed: int, tmp_path: Path) -> None:
    skipped = SkippedImages({"train": images, "val": 10**6}, limit, tmp_path / "list.jsonl")
    skipped.add(bad(number) for number in range(allowed))
    skipped.add(bad(number, "val") for number in range(allowed))
    message = (
        rf"^{allowed + 1} of {images:,} images in split train cannot be read, .*bad_images_limit allows {allowed}; "
    )
    with pytest.raises(
        DataError, match=message + rf".*a/{allowed}.png: torn; they are listed in {tmp_path}/list.jsonl"
    ):
        skipped.add([bad(allowed)])
    assert len((tmp_path / "list.jsonl").read_text().splitlines()) == 2 * allowed + 1


def test_the_limit_ends_the_workers() -> None:
    limited = SkippedImages({"train": 26}, 2)
    with pytest.raises(DataError, match=r"^3 of 26 images in split train cannot be read"):
        list(each(feed(Damaged(*BAD), workers=2, on_skipped=limited.add)))
    assert multiprocessing.active_children() == []


def test_a_thousand_bad_images_do_not_flood_the_screen() -> None:
    said: list[str] = []
    SkippedImages({"train": 10_000}, 1000, say=said.append).add(bad(number) for number in range(1000))
    assert len(said) == 21
    assert said[-1].startswith("more skipped images of split train are only listed")


def test_a_list_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    folder, said = tmp_path / "run", []
    images = SkippedImages({"train": 100}, 9, folder / "list.jsonl", said.append)
    images.add([bad(1), bad(2)])
    problems = [line for line in said if "cannot be written" in line]
    assert len(problems) == 1
    assert re.match(r".*/list\.jsonl cannot be written: No such file or directory; .*; training goes on", problems[0])
    folder.mkdir()
    images.add([bad(3)])
    assert [json.loads(line)["number"] for line in (folder / "list.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_a_run_skips_lists_and_counts_and_resumes(train_in: Any, rows: Any, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, count in (("train", 12), ("val", 5)):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 8, 3), (i * 20, 90, 200 * (label == "b")), np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    torn = [root / "train/a/3.png", root / "train/b/5.png", root / "val/b/4.png"]
    for path in torn:
        path.write_bytes(path.read_bytes()[:45])
    overrides = ("data.name=image_folder", f"data.root={root}", "data.workers=0", "training.batch_size=4",
                 "data.bad_images_limit=2")  # fmt: skip
    with pytest.raises(DataError, match="cannot be decoded"):
        train_in(tmp_path / "whole", *overrides)
    # What ended the run is cured by the key it names; no --allow-change is needed.
    skip = (*overrides, "data.bad_images=skip")
    train_in(tmp_path / "whole", *skip)
    listed = [json.loads(line) for line in (tmp_path / "whole/skipped_images.jsonl").read_text().splitlines()]
    assert sorted(line["place"] for line in listed) == sorted(map(str, torn))
    evaluations = [row for row in rows(tmp_path / "whole") if row["kind"] == "eval"]
    assert {(row["images"], row["skipped"]) for row in evaluations} == {(9, 1)}
    log = (tmp_path / "whole/train.log").read_text()
    assert [log.count(f"skipped: split {path.parts[-3]}, image {path}: ") for path in torn] == [1, 1, 1]
    assert "2 train images and 1 val images could not be read and were skipped: see" in log

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        train_in(tmp_path / "stopped", *skip, at={6: stop})
    train_in(tmp_path / "stopped", *skip, "data.workers=2")
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    stopped = [json.loads(line) for line in (tmp_path / "stopped/skipped_images.jsonl").read_text().splitlines()]
    assert stopped == listed
