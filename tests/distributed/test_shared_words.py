"""What one process knows and the others must: images it skipped, votes to stop, who is not there."""

import json
import signal

import pytest

from convrun.distributed.group import Group
from convrun.distributed.meeting.agreement import check_agreement
from convrun.distributed.meeting.rendezvous import ranks_text
from convrun.distributed.stopping import AgreedStop
from convrun.errors import DataError
from convrun.process.signals import StopRequest
from convrun.process.world import World


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([3], "rank 3"),
        ([3, 5], "ranks 3 and 5"),
        ([3, 4], "ranks 3 and 4"),
        ([0, 2, 3, 4, 9], "ranks 0, 2 to 4 and 9"),
        ([5, 6, 7], "ranks 5 to 7"),
    ],
)
def test_ranks_are_listed_in_short(ranks, text):
    assert ranks_text(ranks) == text


class Votes:
    """A group of 2 whose other process votes as told."""

    size = 2

    def __init__(self, *others):
        self.others = list(others)

    def start_largest(self, tensor):
        tensor.fill_(max(int(tensor), self.others.pop(0)))
        return self

    def wait(self):
        pass


def test_a_vote_counts_one_call_later_and_stays():
    stop = StopRequest()
    asked = AgreedStop(stop, Votes(0, 1 + signal.SIGTERM, 0))
    assert [asked() for _ in range(4)] == [False, False, True, True]
    assert stop.signal == signal.SIGTERM


def test_ctrl_c_weighs_more_than_another_signal():
    stop = StopRequest()
    stop.signal = signal.SIGUSR1
    asked = AgreedStop(stop, Votes(1000, 0))
    assert [asked(), asked()] == [False, True]
    assert stop.signal == signal.SIGINT


def test_the_time_that_is_over_elsewhere_is_over_here():
    stop = StopRequest()
    stop.stop_after_seconds = 1000.0
    asked = AgreedStop(stop, Votes(1, 0))
    assert [asked(), asked()] == [False, True]
    assert stop.signal is None
    assert "training.stop_after" in str(stop.error("saved"))


class Everyone:
    world = World(host="gpu1")

    def from_all(self, value):
        return [({"recipe": "a", "data": "x"}, "gpu1"), ({"recipe": "a", "data": "y"}, "gpu2"), value]


def test_other_data_on_one_node_are_refused_with_its_name():
    with pytest.raises(DataError, match=r"rank 1 \(gpu2\) and rank 0 do not have the same data; .*look at the data"):
        check_agreement(Everyone(), {"recipe": "a", "data": "x"})


def test_a_group_of_one_costs_nothing():
    import torch

    group = Group()
    assert group.from_first(lambda: 3) == 3
    assert group.from_all(3) == [3]
    tensor = torch.ones(2)
    assert group.add_up(tensor) is tensor
    with group.one_of_each_node_first():
        group.wait()
    assert tensor.tolist() == [1, 1]


@pytest.fixture
def broken_images(tmp_path):
    """An image folder of 2 classes × 12 images of which one of each split cannot be read."""
    from PIL import Image

    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(12):
                Image.new("RGB", (8, 8), (number * 20, 100, 50)).save(folder / f"{number:02}.png")
        (tmp_path / "images" / split / "a" / "03.png").write_bytes(b"no image")
    return tmp_path / "images"


def test_images_that_any_rank_skips_are_listed_by_rank_0_once(ranks, broken_images, tmp_path, tiny_file):
    recipe = tmp_path / "recipe.yaml"
    data = f"data: {{name: image_folder, root: {broken_images}, num_classes: 2, workers: 0, bad_images: skip}}\n"
    lines = [line for line in tiny_file.read_text().splitlines() if not line.startswith("data:")]
    recipe.write_text("\n".join(lines) + "\n" + data)
    folder = tmp_path / "run"
    processes = ranks(2, [recipe, "--no-plugins", "--device", "cpu", "-o", folder, "optimizer.lr=1e-3"])
    assert processes.wait() == [0, 0], processes.said()
    listed = [json.loads(line) for line in (folder / "skipped_images.jsonl").read_text().splitlines()]
    assert sorted(image["split"] for image in listed) == ["train", "val"]
    evaluated = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {(row["images"], row["skipped"]) for row in evaluated if row["kind"] == "eval"} == {(23, 1)}


@pytest.mark.parametrize(("rank", "epoch"), [(0, 5), (1, 10)])
def test_a_callback_that_differs_by_rank_ends_the_run_if_it_is_rank_0s(rank, epoch, ranks, same_run, tmp_path):
    """One that looks at a clock, or at a file: the ranks that went on would wait for the others for ever."""

    def decide():
        from convrun.components.callbacks import EarlyStopping

        EarlyStopping.on_evaluation = lambda self, row: "it is late" if row["epoch"] >= 5 else None

    keys = ("evaluation.every_steps=10", "training.epochs=10")
    processes = ranks(2, same_run(tmp_path / "run", *keys), at={(rank, None): decide})
    assert processes.wait() == [0, 0], processes.said()
    evaluated = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert evaluated[-1]["epoch"] == epoch
    assert ("it is late" in processes.said()) == (rank == 0)
