"""fsdp: each process holds a share of the model; the run is the one that ddp trains."""

import json
import os
import shutil
import signal
import sys
import traceback

import pytest
import torch
from safetensors.torch import load_file

TOLERANCE = 1e-4
FSDP = "distributed.strategy=fsdp"
CHECKPOINTING = "distributed.activation_checkpointing=true"
# 10 steps; every checkpoint stays, so that a run can go on from any.
SHORTER = ("training.epochs=5", "checkpoints.keep.last=10", "evaluation.every_steps=4")


@pytest.fixture(scope="module")
def shorter(same_run):
    return lambda folder, *more: same_run(folder, *SHORTER, *more)


@pytest.fixture(scope="module")
def whole(ranks, shorter, tmp_path_factory):
    """The finished run of one process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert ranks(1, shorter(folder)).wait() == [0]
    return folder


@pytest.fixture(scope="module")
def two(ranks, shorter, tmp_path_factory):
    """The finished run of 2 processes with fsdp."""
    folder = tmp_path_factory.mktemp("two") / "run"
    processes = ranks(2, shorter(folder, FSDP))
    assert processes.wait() == [0, 0], processes.said()
    return folder


@pytest.fixture(scope="module")
def four(ranks, shorter, tmp_path_factory):
    """A run of 4 processes with fsdp and activation checkpointing, stopped by a signal to one, then finished."""
    folder = tmp_path_factory.mktemp("four") / "run"
    processes = ranks(
        4, shorter(folder, FSDP, CHECKPOINTING), at={(2, 4): lambda: os.kill(os.getpid(), signal.SIGTERM)}
    )
    assert processes.wait() == [75] * 4, processes.said()
    processes = ranks(4, shorter(folder, FSDP, CHECKPOINTING))
    assert processes.wait() == [0] * 4, processes.said()
    return folder


def assert_same(ours, theirs, tolerance=TOLERANCE):
    """Numbers and tensors up to rounding, in trees; anything else alike."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if key == "/figures/remembered":
                assert_same(json.loads(ours[key]), json.loads(value), tolerance)
            elif not str(key).startswith("/recipe"):
                assert_same(ours[key], value, tolerance)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other, tolerance)
    elif isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    else:
        assert ours == theirs


def back_at(folder, step, copy):
    """A copy of a run that has come to this step."""
    shutil.copytree(folder, copy, symlinks=True)
    for path in (copy / "checkpoints").glob("step-*.pt"):
        if int(path.stem.partition("-")[2]) > step:
            path.unlink()
    return copy


def test_losses_norms_and_results_of_2_are_those_of_one_process(two, whole, rows):
    assert len(rows(whole)) > 6
    assert_same(rows(two), rows(whole))


def test_losses_norms_and_results_of_4_that_checkpoint_activations_are_those_of_one_process(four, whole, rows):
    assert_same(rows(four), rows(whole))


def test_a_checkpoint_is_the_one_file_that_one_process_writes(two, whole, saved):
    assert_same(saved(two), saved(whole))
    assert all(tensor.is_contiguous() for tensor in saved(two).values() if isinstance(tensor, torch.Tensor))


def test_weights_are_left_whole(two, four, whole):
    for name in ("last", "last_ema", "best", "best_ema"):
        theirs = load_file(whole / "weights" / f"{name}.safetensors")
        assert_same(load_file(two / "weights" / f"{name}.safetensors"), theirs)
        assert_same(load_file(four / "weights" / f"{name}.safetensors"), theirs)


def test_a_run_goes_on_bit_for_bit_on_as_many_processes(two, ranks, shorter, rows, saved, tmp_path):
    processes = ranks(2, shorter(back_at(two, 4, tmp_path / "run"), FSDP))
    assert processes.wait() == [0, 0], processes.said()
    assert_same(saved(tmp_path / "run"), saved(two), tolerance=0)
    assert rows(tmp_path / "run") == rows(two)


def test_a_run_saved_with_fsdp_on_4_goes_on_with_ddp_on_1(four, whole, ranks, shorter, rows, saved, tmp_path):
    processes = ranks(1, shorter(back_at(four, 5, tmp_path / "run")))
    assert processes.wait() == [0], processes.said()
    assert_same(rows(tmp_path / "run"), rows(whole))
    assert_same(saved(tmp_path / "run"), saved(whole))


def test_a_run_saved_with_ddp_on_1_goes_on_with_fsdp_on_2(whole, ranks, shorter, rows, saved, tmp_path):
    processes = ranks(2, shorter(back_at(whole, 4, tmp_path / "run"), FSDP))
    assert processes.wait() == [0, 0], processes.said()
    assert_same(rows(tmp_path / "run"), rows(whole))
    assert_same(saved(tmp_path / "run"), saved(whole))


def test_fewer_images_than_processes_are_evaluated_once(ranks, shorter, rows, tmp_path):
    changes = ("data.val_images=1", "training.epochs=null", "training.steps=4", "training.precision=bf16")
    processes = ranks(2, shorter(tmp_path / "run", FSDP, *changes))
    assert processes.wait() == [0, 0], processes.said()
    assert [row["images"] for row in rows(tmp_path / "run") if row["kind"] == "eval"] == [1, 1]


def in_two(job, tmp_path):
    """Runs `job(group)` in two forks that can talk to each other; fails with what they raised."""
    from torch import distributed

    from convrun.distributed.group import Group
    from convrun.process.world import World

    pids = []
    for rank in range(2):
        pids.append(os.fork())
        if pids[-1]:
            continue
        try:
            signal.alarm(0)
            torch.set_num_threads(1)  # before there are threads: two of them must not find a pool from before the fork
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            store = distributed.FileStore(str(tmp_path / "store"), 2)
            distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
            job(Group(World(rank=rank, size=2)))
        except BaseException:
            (tmp_path / f"error-{rank}").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)
    errors = [path.read_text() for path in sorted(tmp_path.glob("error-*"))]
    assert not errors, "\n".join(errors)


def small_model():
    from convrun.models.shapes import Shape
    from convrun.models.staged import staged

    torch.manual_seed(0)
    return staged(Shape((1, 1, 2, 1), (4, 6, 8, 5), patch_size=1, kernel_size=3), 3, 0.0, 1e-6, 0.0)


def all_optimizers():
    from convrun.registry import registry

    return [component for component in registry.all("optimizer") if component.meta.get("shards", False)]


def test_every_optimizer_that_says_so_computes_the_same_on_shares(tmp_path):
    def job(group):
        from convrun.distributed.shards import Shards, shard

        for component in all_optimizers():
            cut, reference = small_model(), small_model()
            shard(cut, torch.device("cpu"), None)
            shards = Shards(cut, group)
            for model, first, last in ((cut, group.rank, group.rank + 1), (reference, 0, 2)):
                optimizer = component.create([{"params": list(model.parameters())}], lr=1e-2)
                for step in range(3):
                    images = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(step))
                    for i in range(first, last):
                        with shards.summing(True):
                            (model(images[i]).square().mean() / 2).backward()
                    optimizer.step()
                    optimizer.zero_grad()
            found = shards.whole(cut.state_dict())
            if group.is_first:
                for name, value in reference.state_dict().items():
                    torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=f"{component.name}: {name}")

    in_two(job, tmp_path)


def test_bf16_is_what_is_computed_with_and_float32_what_is_kept(tmp_path):
    def job(group):
        from torch.distributed.tensor import DTensor

        from convrun.distributed.shards import shard

        model, seen = small_model(), []
        block = model.get_submodule("stages.2.blocks.1")
        shard(model, torch.device("cpu"), torch.bfloat16)
        block.register_forward_pre_hook(lambda module, _: seen.append([type(p.data) for p in module.parameters()]))
        block.register_forward_pre_hook(lambda module, _: seen.append([p.dtype for p in module.parameters()]))
        for is_last in (False, True):
            model.set_requires_gradient_sync(is_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(torch.randn(2, 3, 8, 8)).float().square().mean()
            loss.backward()
            assert all((p.grad is not None) == is_last for p in model.parameters())
        assert {*seen[1]} == {torch.bfloat16} and DTensor not in seen[0]
        for parameter in model.parameters():
            assert isinstance(parameter, DTensor)
            assert parameter.dtype == parameter.grad.dtype == torch.float32
        held = sum(p.to_local().numel() for p in model.parameters())
        assert held < 0.6 * sum(p.numel() for p in model.parameters())

    in_two(job, tmp_path)


def test_an_evaluation_of_the_average_computes_with_it_and_leaves_the_weights_as_they_were(tmp_path):
    def job(group):
        from convrun.distributed.shards import Shards, shard
        from convrun.training.ema import Ema

        model = small_model()
        shard(model, torch.device("cpu"), None)
        ema, images = Ema(model, 0.9), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before = model(images)
            for parameter in model.parameters():
                parameter.to_local().add_(0.1)
            changed = model(images)
            assert not torch.equal(before, changed)
            with ema.swapped_in():
                assert torch.equal(model(images), before)
            assert torch.equal(model(images), changed)
            ema.update()
            found = Shards(model, group).whole({"ema": ema.state_dict(), "model": model.state_dict()})
        if group.is_first:
            for name, first in small_model().state_dict().items():
                torch.testing.assert_close(found["ema"][name], first + 0.01, rtol=0, atol=1e-6)
                torch.testing.assert_close(found["model"][name], first + 0.1, rtol=0, atol=1e-6)

    in_two(job, tmp_path)


def test_an_average_of_shares_can_begin_with_the_weights_as_they_are_now(tmp_path):
    def job(group):
        from convrun.distributed.shards import Shards, shard
        from convrun.training.ema import Ema

        model = small_model()
        shard(model, torch.device("cpu"), None)
        ema = Ema(model, 0.9)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.to_local().add_(0.1)
            ema.restart()
            for parameter in model.parameters():
                parameter.to_local().add_(0.1)  # the average is a copy
        found = Shards(model, group).whole(ema.state_dict())
        if group.is_first:
            for name, first in small_model().state_dict().items():
                torch.testing.assert_close(found[name], first + 0.1, rtol=0, atol=1e-6)

    in_two(job, tmp_path)


def test_a_weight_that_is_not_finite_on_one_share_is_found_by_all(tmp_path):
    def job(group):
        from convrun.distributed.shards import Shards, shard

        model = small_model()
        shard(model, torch.device("cpu"), None)
        shards = Shards(model, group)
        assert shards.true_for_all(torch.tensor([True, group.rank == 0])).tolist() == [True, False]
        assert shards.norms_of_all(torch.tensor([3.0 + group.rank])).item() == pytest.approx(5.0)
        assert shards.norms_of_all(torch.tensor([1.0 if group.rank else float("nan")])).isnan().item()

    in_two(job, tmp_path)


def test_running_statistics_are_refused():
    from convrun.distributed.shards import shard
    from convrun.errors import ModelError

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    with pytest.raises(ModelError, match=r"1 of Sequential has some; set distributed\.strategy to ddp"):
        shard(model, torch.device("cpu"), None)


def test_a_last_checkpoint_that_fails_is_gathered_once_more(ranks, shorter, tmp_path):
    def fail_once():
        from convrun import checkpoints
        from convrun.errors import RunFolderError

        save, failures = checkpoints.save, ["the disk is full"]

        def failing(folder, step, *rest, **keys):
            if step == 4 and failures:
                sys.stderr.write(failures[0])
                raise RunFolderError(failures.pop())
            return save(folder, step, *rest, **keys)

        checkpoints.save = failing

    changes = ("training.epochs=null", "training.steps=4", "evaluation=null", "callbacks=[]")
    arguments = shorter(tmp_path / "run", FSDP, *changes)
    arguments.remove("evaluation.every_steps=4")
    processes = ranks(2, arguments, at={(0, None): fail_once})
    assert processes.wait() == [0, 0], processes.said()
    assert "the disk is full" in processes.said()
    assert (tmp_path / "run" / "checkpoints" / "latest").resolve().name == "step-4.pt"
