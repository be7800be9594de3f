"""The same run on any number of processes: same images, draws and learning rates; results up to rounding."""

import json
import os
import shutil
import signal

import pytest
import torch

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folders(ranks, same_run, tmp_path_factory):
    """Finished runs of 20 steps: of 1, 2 and 4 processes, accumulating 12, 6 and 3 micro-batches."""
    home = tmp_path_factory.mktemp("same")
    for count in (1, 2, 4):
        processes = ranks(count, same_run(home / str(count)))
        assert processes.wait() == [0] * count, processes.said()
    return {count: home / str(count) for count in (1, 2, 4)}


@pytest.fixture(scope="module")
def stopped(ranks, same_run, tmp_path_factory):
    """A run of 4 processes of which rank 2 is sent SIGTERM after step 9."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    at = {(2, 9): lambda: os.kill(os.getpid(), signal.SIGTERM)}
    processes = ranks(4, same_run(folder), at=at)
    return folder, processes.wait(), processes.said()


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(ours[key], value, rtol=0, atol=TOLERANCE, msg=lambda text, key=key: key + text)
        elif key == "/figures/remembered":
            for step, other in zip(json.loads(ours[key]), json.loads(value), strict=True):
                flat = [{**figures, "group_norms": 0} for figures in (step, other)]
                assert flat[0] == pytest.approx(flat[1], rel=TOLERANCE, abs=TOLERANCE)
                assert step["group_norms"] == pytest.approx(other["group_norms"], rel=TOLERANCE, abs=TOLERANCE)
        elif isinstance(value, float):
            assert ours[key] == pytest.approx(value, abs=TOLERANCE), key
        elif not key.startswith("/recipe"):
            assert ours[key] == value, key


def assert_same_rows(ours, theirs):
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        assert (row["kind"], row["step"]) == (other["kind"], other["step"])
        for key in row.keys() - {"kind", "weights"}:
            assert row[key] == pytest.approx(other[key], rel=TOLERANCE, abs=TOLERANCE), key


@pytest.mark.parametrize("count", [2, 4])
def test_weights_averages_moments_and_figures_agree(folders, saved, count):
    one = saved(folders[1])
    assert max(float(value.abs().max()) for key, value in one.items() if key.startswith("/ema")) > 0.1
    assert_same(saved(folders[count]), one)


@pytest.mark.parametrize("count", [2, 4])
def test_losses_learning_rates_norms_and_results_agree(folders, rows, count):
    assert_same_rows(rows(folders[count]), rows(folders[1]))


@pytest.mark.parametrize("count", [2, 4])
def test_every_image_is_evaluated_once_though_10_do_not_divide(folders, rows, count):
    found = [(row["images"], row["top1"], row["top5"]) for row in rows(folders[count]) if row["kind"] == "eval"]
    assert found == [(row["images"], row["top1"], row["top5"]) for row in rows(folders[1]) if row["kind"] == "eval"]
    assert {images for images, _, _ in found} == {10}


def test_fewer_images_than_processes_are_counted_once(ranks, same_run, tmp_path, rows):
    changes = ("data.val_images=3", "training.epochs=1", "scheduler.warmup_steps=1")
    assert ranks(4, same_run(tmp_path / "four", *changes)).wait() == [0] * 4
    assert ranks(1, same_run(tmp_path / "one", *changes)).wait() == [0]
    assert rows(tmp_path / "four")[-1]["images"] == 3
    assert_same_rows(rows(tmp_path / "four"), rows(tmp_path / "one"))


def test_rank_0_alone_writes_and_the_others_have_a_log(folders):
    four, one = ({path.name for path in folders[count].iterdir()} for count in (4, 1))
    assert four == one | {"logs"}
    assert sorted(path.name for path in (folders[4] / "logs").iterdir()) == [f"rank-{rank}.log" for rank in (1, 2, 3)]
    assert (folders[4] / "logs" / "rank-3.log").read_text().startswith("rank 3 of 4 on ")


def test_the_backend_and_the_devices_are_said_once(folders):
    assert (folders[4] / "train.log").read_text().count("1 node × 4 (CPU, 1 thread; 4 processes, gloo)") == 1


def test_a_signal_to_one_rank_stops_all_at_the_same_step_with_one_message(stopped):
    folder, codes, said = stopped
    assert codes == [75] * 4
    assert said.count("all saved; go on with: convrun run") == 1
    assert len(list((folder / "checkpoints").glob("step-*.pt"))) <= 3
    assert (folder / "checkpoints" / "latest").resolve().name in ("step-10.pt", "step-11.pt")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_run_saved_by_4_processes_goes_on(stopped, ranks, same_run, folders, rows, saved, count, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "run", symlinks=True)
    processes = ranks(count, same_run(tmp_path / "run"))
    assert processes.wait() == [0] * count, processes.said()
    assert_same(saved(tmp_path / "run"), saved(folders[1]))
    assert_same_rows(rows(tmp_path / "run"), rows(folders[1]))


@pytest.mark.parametrize("greedy_rank", [0, 1])
def test_processes_agree_on_parts_that_fit_in_all(greedy_rank, ranks, tiny_file, tmp_path, rows):
    """One device has memory for 2 images at a time, and micro_batch is auto: all take 4 parts of 8 images."""

    def starve():
        from convrun.models.staged import ConvNeXt

        forward = ConvNeXt.forward

        def greedy(model, images):
            if model.training and len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return forward(model, images)

        ConvNeXt.forward = greedy

    keys = ("training.batch_size=16", "training.micro_batch=auto", "evaluation=null", "ema=null", "callbacks=[]",
            "model.drop_path_rate=0")  # fmt: skip
    arguments = [tiny_file, "--no-plugins", "--device", "cpu", *keys]
    starved = ranks(2, [*arguments, "-o", tmp_path / "starved"], {(greedy_rank, None): starve})
    codes = starved.wait()
    whole = ranks(2, [*arguments, "-o", tmp_path / "whole"])
    assert (codes, whole.wait()) == ([0, 0], [0, 0]), starved.said()
    event, *ours = rows(tmp_path / "starved")
    assert (event["kind"], event["step"], event["forward_parts"]) == ("event", 1, 4)
    theirs = rows(tmp_path / "whole")
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-5)
