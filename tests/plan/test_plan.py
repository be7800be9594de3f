import json
import math

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from convrun.contracts.data import DataFacts, DataSettings
from convrun.contracts.model import ModelSettings
from convrun.contracts.optimizer import OptimizerSettings
from convrun.data.order import TrainingOrder
from convrun.errors import DataError, PluginError
from convrun.plan import Machine, checkpoint_bytes, kept_checkpoints, make_plan, warnings
from convrun.recipe import load_recipe
from convrun.recipe.problems import RecipeError
from convrun.recipe.sections import PLAIN_SECTIONS

SMALL = """\
input_size: 32
model: convnext_atto
data: {name: synthetic, train_images: 100, val_images: 20}
optimizer: {name: adamw, lr: 4e-3}
scheduler: {name: cosine, warmup_epochs: 2}
training: {epochs: 5, batch_size: 10}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Plans the small recipe with overrides, on a machine."""
    path = tmp_path_factory.mktemp("plan") / "small.yaml"
    path.write_text(SMALL)

    def small(*overrides, processes=1, **machine):
        return make_plan(load_recipe(path, overrides, plugins=False), Machine(processes=processes, **machine))

    return small


@pytest.fixture(scope="module")
def tiny():
    """ConvNeXt-T's 300 epochs on the paper's 32 GPUs."""
    return make_plan(load_recipe("convnext_tiny_in1k", plugins=False), Machine(processes=32, cores=64))


def problems(plan, *overrides, **machine):
    with pytest.raises(RecipeError) as caught:
        plan(*overrides, **machine)
    return caught.value.problems


def problem(plan, *overrides, **machine):
    (found,) = problems(plan, *overrides, **machine)
    return found


# The paper's run, by hand


def test_the_papers_run_has_its_published_numbers(tiny):
    assert (tiny.train_images, tiny.val_images, tiny.num_classes) == (1_281_167, 50_000, 1000)
    assert (tiny.processes, tiny.micro_batch, tiny.accumulation, tiny.training.batch_size) == (32, 128, 1, 4096)
    assert tiny.steps_per_epoch == 1_281_167 // 4096 == 312
    assert tiny.images_left_out == 1_281_167 - 312 * 4096 == 3215
    assert (tiny.epochs, tiny.total_steps) == (300, 300 * 312)
    assert (tiny.evaluation_interval, tiny.checkpoint_interval) == (312, 312)
    assert tiny.ema_horizon() == pytest.approx(10_000)  # 1 / (1 - 0.9999)
    assert tiny.parameters() == 28_589_128  # counted on the released code


def test_the_papers_learning_rates_are_those_of_the_released_code(tiny):
    assert tiny.lr(0) == 0.0
    assert tiny.lr(6239) == tiny.lr(6240) == 4e-3  # 20 × 312 = 6,240 warm-up steps hold both ends
    assert tiny.lr(6241) < 4e-3
    assert tiny.lr(46_800) == pytest.approx(0.0022243729699685643, rel=1e-12)  # golden/lr_schedules.json
    assert 1e-6 < tiny.lr(93_599) == pytest.approx(1.0000012929028863e-06, rel=1e-9)


def test_a_checkpoint_holds_weights_ema_and_two_moments(tiny):
    assert checkpoint_bytes(tiny) == 4 * 28_589_128 * (1 + 1 + 2)
    assert kept_checkpoints(tiny) == 2 + 1 + 1, "the last two, the best, and the one being written"


def test_checkpoints_kept_for_good_are_counted(small):
    plan = small("checkpoints.keep.every_epochs=2")
    assert plan.keep_interval == 2 * 10  # 10 steps an epoch
    assert kept_checkpoints(plan) == 2 + 1 + 2 + 1, "epochs 2 and 4 of 5 stay for good"
    assert small().keep_interval is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["checkpoints.keep.every_epochs=6"],
            "has no effect: the run ends before 6 epochs are done; lower or remove it",
        ),
        (
            ["checkpoints.keep.every_epochs=3", "checkpoints.every_epochs=2"],
            r"no checkpoint is written at the end of epoch 3; use a multiple of checkpoints\.every_epochs \(2\)",
        ),
        (
            ["checkpoints={every_steps: 7, every_epochs: null, keep: {every_epochs: 1}}"],
            r"no checkpoint is written at the end of epoch 1; set checkpoints\.every_epochs",
        ),
    ],
)
def test_a_checkpoint_to_be_kept_for_good_must_be_written(overrides, message, small):
    with pytest.raises(RecipeError, match=rf"checkpoints\.keep\.every_epochs: {message}"):
        small(*overrides)
    plan = small("checkpoints={every_steps: 5, every_epochs: null, keep: {every_epochs: 1}}")
    assert plan.keep_interval == 10


def test_pipelines_are_told_in_order(tiny):
    steps = [step.partition("(")[0].strip() for step in tiny.training_pipeline()]
    assert steps == [
        "random_resized_crop", "horizontal_flip", "rand_augment", "normalise", "random_erasing", "mixup_cutmix",
    ]  # fmt: skip
    assert tiny.evaluation_pipeline()[0] == "resize the short side to 256 (bicubic), centre crop 224"  # 224 / 0.875


def test_a_plan_holds_the_sections_of_its_recipe_as_they_are():
    """A new key of a section reaches those that read it, plan.json included, without the plan naming it."""
    recipe = load_recipe("convnext_tiny_in1k", plugins=False)
    plan, resolved = make_plan(recipe, Machine()), recipe.resolved()
    assert all(getattr(plan, name) is section for name, section in recipe.sections().items())
    data = plan.as_dict()
    assert {key: data[key] for key in PLAIN_SECTIONS if key in data} == {
        key: resolved[key] for key in PLAIN_SECTIONS if key in resolved and key != "expect"
    }


def test_the_keys_of_a_kind_are_read_with_their_types(small):
    plan = small("data.workers=3", "optimizer.layer_decay=0.8", "model.num_classes=12")
    assert plan.data.settings == DataSettings(workers=3)
    assert plan.optimizer.settings == OptimizerSettings(layer_decay=0.8)
    assert plan.model.settings == ModelSettings(num_classes=12)
    assert plan.loss.settings is None


def test_what_auto_stands_for_and_what_counts_without_an_evaluation(small):
    plan = small("evaluation=null", "training.micro_batch=5")
    assert (plan.micro_batch_is_auto, plan.evaluation_batch_is_auto, plan.evaluation_batch) == (False, True, 5)
    assert (plan.report, plan.interpolation, plan.evaluation_interval) == ("model", "bicubic", None)


def test_a_plan_holds_no_secret_of_a_plain_section(small, monkeypatch):
    monkeypatch.setenv("HOST_TOKEN", "a-secret-word")
    plan = small("init.from=https://host/x?token=${env:HOST_TOKEN}")
    assert plan.init.from_ == "https://host/x?token=a-secret-word"
    assert plan.as_dict()["init"]["from"] == "https://host/x?token=${env:HOST_TOKEN}"
    assert "a-secret-word" not in json.dumps(plan.as_dict())


def test_a_plan_is_json(tiny):
    data = json.loads(json.dumps(tiny.as_dict()))
    assert (data["total_steps"], data["parameters"], data["final_lr"]) == (93_600, 28_589_128, tiny.lr(93_599))
    assert data["model"]["name"] == "convnext_tiny"


# Nothing depends on the number of processes


SHARES = st.tuples(st.integers(1, 6), st.integers(1, 4), st.sampled_from([1, 2, 3, 4, 6]))
SCHEDULES = st.one_of(
    st.builds("{{name: cosine, warmup_steps: {}, min_lr: {}}}".format, st.integers(0, 3), st.sampled_from([0, 1e-5])),
    st.builds("{{name: linear, warmup_epochs: {}}}".format, st.sampled_from([0, 0.5, 1])),
    st.builds("{{name: step, every_steps: {}, factor: {}}}".format, st.integers(1, 3), st.sampled_from([0.1, 0.9])),
    st.builds("{{name: constant, warmup_steps: {}}}".format, st.integers(0, 3)),
)


def images_of(plan, step):
    """The images of an update: by micro-batch, over all ranks."""
    found = {}
    for rank in range(plan.processes):
        for position in TrainingOrder(
            seed=plan.seed, images=plan.train_images, batch_size=plan.training.batch_size, micro_batch=plan.micro_batch,
            rank=rank, world=plan.processes, start_step=step, end_step=step + 1,
        ):  # fmt: skip
            assert position.number not in found
            found[position.number] = position.indices.tolist()
    return [found[number] for number in sorted(found)]


@settings(max_examples=50)
@given(SHARES, st.integers(1, 200), st.integers(1, 4), SCHEDULES, st.integers(0, 5))
def test_updates_learning_rates_and_images_do_not_depend_on_the_processes(small, share, extra, epochs, scheduler, seed):
    micro, accumulation, processes = share
    batch = micro * accumulation * processes
    overrides = [
        f"data.train_images={batch + extra}", "data.num_classes=2", f"training={{epochs: {epochs}, "
        f"batch_size: {batch}, micro_batch: {micro}}}", f"scheduler={scheduler}", f"seed={seed}",
    ]  # fmt: skip
    try:
        alone = small(*overrides)
    except RecipeError:
        reject()  # a warm-up or an interval beyond so short a run
    together = small(*overrides, processes=processes)
    assert together.accumulation == accumulation
    assert alone.total_steps == together.total_steps == epochs * ((batch + extra) // batch)
    assert [alone.lr(s) for s in range(alone.total_steps)] == [together.lr(s) for s in range(alone.total_steps)]
    for step in {0, alone.total_steps // 2, alone.total_steps - 1}:
        assert images_of(alone, step) == images_of(together, step)


@settings(max_examples=40)
@given(st.integers(1, 24), st.sampled_from([1, 2, 3, 4]), st.integers(1, 20))
def test_an_automatic_micro_batch_changes_no_updates_images(small, share, processes, extra):
    batch = share * processes
    overrides = [f"data.train_images={batch + extra}", "data.num_classes=2", f"training.batch_size={batch}",
                 "scheduler=constant"]  # fmt: skip
    alone, together = small(*overrides), small(*overrides, processes=processes)
    assert together.processes * together.micro_batch * together.accumulation == batch
    assert np.concatenate(images_of(alone, 0)).tolist() == np.concatenate(images_of(together, 0)).tolist()


@settings(max_examples=60)
@given(
    st.sampled_from(["cosine", "linear", "step", "constant"]),
    st.floats(1e-6, 10),
    st.integers(3, 400),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_every_learning_rate_is_finite_not_negative_and_not_above_the_peak(small, name, lr, steps, warm, start, low):
    warmup = int(warm * (steps - 2))
    keys = f"warmup_steps: {warmup}, warmup_start_lr: {start * lr if warmup else 0!r}"
    keys += f", min_lr: {low * lr!r}" if name in ("cosine", "linear") else ""
    keys += f", every_steps: {max(warmup + 1, steps // 3)}" if name == "step" else ""
    plan = small(
        f"optimizer.lr={lr!r}", f"training={{steps: {steps}, batch_size: 10}}", f"scheduler={{name: {name}, {keys}}}"
    )
    rates = [plan.lr(step) for step in range(steps)]
    assert all(math.isfinite(rate) and 0 <= rate <= plan.peak_lr * (1 + 1e-12) for rate in rates)
    assert max(rates) == pytest.approx(plan.peak_lr)
    if warmup > 1:
        assert rates[warmup - 1] == plan.peak_lr


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(1, 30))
def test_an_interval_falls_after_each_multiple_and_at_the_end(small, interval, total):
    keys = f"{{every_steps: {interval}}}"
    plan = small(f"evaluation={keys}", f"checkpoints={keys}", f"logging={keys}",
                 f"training={{steps: {total}, batch_size: 10}}", "scheduler=constant")  # fmt: skip
    due = {s for s in range(total + 1) if s and (s % interval == 0 or s == total)}
    for is_due in (plan.is_evaluated_after, plan.is_saved_after, plan.is_logged_after):
        assert {s for s in range(total + 1) if is_due(s)} == due


# Numbers


def test_intervals_in_epochs_are_steps(small):
    plan = small("evaluation.every_epochs=2", "checkpoints.every_epochs=3")
    assert plan.steps_per_epoch == 10
    assert (plan.evaluation_interval, plan.checkpoint_interval) == (20, 30)
    assert small("evaluation=null").evaluation_interval is None


def test_steps_end_a_run_within_an_epoch(small):
    plan = small("training={steps: 23, batch_size: 10}")
    assert (plan.total_steps, plan.epochs) == (23, 3)


def test_the_learning_rate_is_absolute_unless_it_is_for_another_batch(small):
    assert small().peak_lr == 4e-3
    assert small("optimizer.lr_for_batch=40").peak_lr == pytest.approx(1e-3)  # 4e-3 × 10 / 40


def test_the_evaluations_crop_follows_the_input_size(small):
    assert small("input_size=224").crop_ratio == 0.875
    assert small("input_size=384").crop_ratio is None
    assert small("input_size=224", "evaluation.crop_ratio=squash").crop_ratio is None
    assert small("input_size=384", "evaluation.crop_ratio=0.9").crop_ratio == 0.9


def test_the_evaluations_batch_is_the_micro_batch_unless_it_is_given(small):
    assert small("training.micro_batch=5").evaluation_batch == 5
    assert small("evaluation.batch_size=7").evaluation_batch == 7


@pytest.mark.parametrize(
    ("written", "device", "has_bf16", "precision"),
    [("auto", None, False, None), ("auto", "cpu", True, "float32"), ("auto", "cuda", True, "bf16"),
     ("auto", "cuda", False, "float32"), ("fp16", "cuda", True, "fp16"), ("bf16", None, False, "bf16")],
)  # fmt: skip
def test_automatic_precision_is_bf16_on_a_gpu_that_has_it(small, written, device, has_bf16, precision):
    assert small(f"training.precision={written}", device=device, has_bf16=has_bf16).precision == precision


def test_automatic_workers_share_the_nodes_cores(small):
    assert small(processes=2, cores=8).workers == 4
    assert small("data.workers=3", processes=2, cores=8).workers == 3


def test_facts_that_were_measured_count_more_than_those_declared(small, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    plan = make_plan(load_recipe(path, plugins=False), Machine(), DataFacts(7, 55, 3))
    assert (plan.num_classes, plan.train_images, plan.val_images, plan.steps_per_epoch) == (7, 55, 3, 5)


# What does not fit together points into the recipe


def test_a_batch_that_does_not_divide_names_workable_values(small):
    found = problem(small, processes=3)
    assert (found.path, found.place.line) == (("training", "batch_size"), 6)
    assert found.message == "10 images do not divide over 3 processes"
    assert found.cure == "batch_size can be 9 or 12, or processes 1, 2, 5, 10"


def test_a_micro_batch_that_does_not_divide_names_workable_values(small):
    found = problem(small, "training.micro_batch=3", processes=2)
    assert (found.path, found.place.source) == (("training", "micro_batch"), "override")
    assert found.cure == "micro_batch can be 1, 5"


def test_a_batch_beyond_the_data_names_the_largest(small):
    found = problem(small, "training.batch_size=101", "training.micro_batch=7")
    assert (found.path, found.message) == (
        ("training", "batch_size"),
        "a batch of 101 is larger than the 100 training images",
    )
    assert found.cure == "batch_size can be at most 100"


def test_a_warm_up_longer_than_the_run_points_at_the_warm_up(small):
    found = problem(small, "training.epochs=2")
    assert (found.path, found.place.line) == (("scheduler", "warmup_epochs"), 5)
    assert found.message == "a warm-up of 20 steps does not fit a run of 20"


@pytest.mark.parametrize("epochs", ["1e308", "1e9"])
def test_a_warm_up_beyond_all_bounds_is_a_warm_up_longer_than_the_run(small, epochs):
    assert "does not fit a run of 50" in problem(small, f"scheduler.warmup_epochs={epochs}").message


def test_a_minimum_above_the_peak_points_at_the_minimum(small):
    assert problem(small, "scheduler.min_lr=1").path == ("scheduler", "min_lr")


def test_a_rate_beyond_any_number_points_at_the_scaling_rule(small):
    found = problem(small, "optimizer.lr=1e308", "optimizer.lr_for_batch=1")
    assert found.path == ("optimizer", "lr_for_batch")


def test_mixing_needs_two_images_in_a_micro_batch(small):
    found = problem(small, "augmentations=[mixup_cutmix]", "training.micro_batch=1")
    assert (found.path, found.cure) == (("augmentations", 0), "raise training.micro_batch or remove it")
    assert found.message == "mixup_cutmix mixes the images of a micro-batch, and a micro-batch is one image"


def test_a_head_smaller_than_the_datas_classes_points_at_it(small):
    assert problem(small, "model.num_classes=3").path == ("model", "num_classes")
    assert small("model.num_classes=12").parameters() > small().parameters()


def test_data_that_must_be_counted_and_is_not_there_is_the_worlds_fault(small, tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        small(f"data={{name: image_folder, root: {tmp_path}/none}}")


# Plugins


def test_a_plugins_schedule_that_gives_no_rate_is_told(small, fresh_registry):
    fresh_registry.register("scheduler", "negative")(lambda horizon: lambda step: -1.0)
    fresh_registry.register("scheduler", "infinite")(lambda horizon: lambda step: math.inf)
    fresh_registry.register("scheduler", "nan_at_the_end")(lambda horizon: lambda step: math.nan if step else 1.0)
    for name, step in (("negative", 0), ("infinite", 0), ("nan_at_the_end", 49)):
        found = next(iter(problems(small, f"scheduler={name}")))
        assert found.path == ("scheduler",)
        assert found.message.startswith(f"{name} gives step {step} a learning rate of ")


def test_a_plugins_schedule_that_fails_is_named(small, fresh_registry):
    with fresh_registry.providing("plugin mine.py"):
        fresh_registry.register("scheduler", "broken")(lambda horizon: lambda step: {}["x"])
        fresh_registry.register("data", "broken", facts=lambda: 1 / 0)(lambda split: None)
    with pytest.raises(PluginError, match=r"scheduler/broken from plugin mine\.py .* failed: KeyError: 'x'"):
        small("scheduler=broken")
    with pytest.raises(PluginError, match=r"data/broken from plugin mine\.py .* failed: ZeroDivisionError"):
        small("data=broken")


# Warnings


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["training.batch_size=60"], "40 images (40%) of each epoch do not fill a batch and are left out"),
        (["ema.decay=0.999"], "the EMA will still hold 95% of the initial weights at the end"),  # 0.999 ** 50
        (["logging.every_steps=51"], "only one row is logged, at the end: logging.every_steps exceeds the 50 steps"),
        (["scheduler.min_lr=3e-3"], "the learning rate is still above half its peak at the end"),
    ],
)
def test_what_is_seldom_meant_is_warned_of(small, overrides, text):
    # Five epochs of 100 images: nothing else is odd about them.
    (warning,) = warnings(
        small("logging.every_steps=1", *overrides, *(["scheduler=constant"] * ("60" in overrides[0])))
    )
    assert text in warning


def test_an_ordinary_run_warns_of_nothing(small, tiny):
    assert warnings(tiny) == []
    assert warnings(small("logging.every_steps=1")) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["input_size=28"],
            "input_size: convnext_atto reduces 28 × 28 pixels to nothing; set input_size to at least 32",
        ),
        (
            ["input_size=28", "model={name: convnext, depths: [1, 1, 1, 1], dims: [8, 8, 8, 8]}"],
            "28 × 28 pixels to nothing; set input_size to at least 32, or model.patch_size to at most 3",
        ),
        (
            ["input_size=7", "model={name: convnext, depths: [1, 1, 1, 1], dims: [8, 8, 8, 8], patch_size: 2}"],
            "7 × 7 pixels to nothing; set input_size to at least 16\n",
        ),
        (
            ["input_size=8", "model={name: convnext_isotropic, depth: 1, dim: 8}"],
            "8 × 8 pixels to nothing; set input_size to at least 16, or model.patch_size to at most 8",
        ),
        (["input_size=15", "model=convnext_isotropic_small"], "set input_size to at least 16\n"),
        (["input_size=31", "model=convnextv2_nano"], "set input_size to at least 32\n"),
    ],
)
def test_images_too_small_for_the_model_point_at_the_input_size(small, overrides, message):
    with pytest.raises(RecipeError) as caught:
        small(*overrides)
    assert message in f"{caught.value}\n".replace("\n  ", "\n")


def test_the_smallest_images_have_a_plan(small):
    assert small("input_size=32").input_size == 32
    assert small("input_size=16", "model=convnext_isotropic_small").input_size == 16


def test_one_class_is_a_problem_of_every_data_set(small):
    with pytest.raises(RecipeError, match=r"the data have one class: any model is always right, .* two classes or"):
        small("data.num_classes=1")


def test_a_head_that_is_larger_than_the_data_is_warned_of(small):
    assert [text for text in warnings(small()) if "head" in text] == []
    (found,) = [text for text in warnings(small("data.num_classes=10", "model.num_classes=1000")) if "head" in text]
    assert found == (
        "the model's head is larger than the data: 990 of its 1,000 outputs (model.num_classes) stand for no class, "
        "the data have 10"
    )
