import pytest

from convrun.display.plan_text import plan_text
from convrun.plan import Machine, make_plan
from convrun.recipe import load_recipe


def lines(name, *overrides, processes=1):
    """The plan's lines by label; a label's further lines are joined to it."""
    recipe = load_recipe(name, overrides, plugins=False)
    found, label = {}, ""
    for line in plan_text(recipe, make_plan(recipe, Machine(processes=processes))).splitlines():
        label = line[:12].strip() or label
        found[label] = [*found.get(label, []), line[13:]]
    return found


@pytest.fixture(scope="module")
def tiny():
    return lines("convnext_tiny_in1k", processes=32)


def test_every_number_a_user_should_check_is_there(tiny):
    assert tiny["recipe"] == ["convnext_tiny_in1k: ConvNeXt-T from scratch on ImageNet-1K at 224"]
    assert "28,589,128 parameters, input 224 × 224" in tiny["model"][0]
    assert tiny["data"][1] == "1,281,167 training and 50,000 validation images, 1,000 classes"
    assert tiny["batch"] == ["32 processes × micro-batch 128 × accumulation 1 = 4,096 images"]
    assert tiny["length"] == ["300 epochs × 312 steps = 93,600 steps, 3,215 images left out of each"]
    assert tiny["lr"] == ["cosine: 6,240 warm-up steps from 0, peak 0.004, final 1e-06"]
    assert tiny["EMA"] == ["decay 0.9999: remembers about 10,000 steps (32.1 epochs), float32"]  # 10,000 / 312
    # 28,589,128 × 4 bytes × (weights + EMA + two moments) = 436.2 MiB; the last two, the best, the one being written
    assert tiny["checkpoints"] == [
        "every 312 steps, the last 2 and the best 1 kept, 436 MiB each, at most 1.7 GiB on disk"
    ]
    assert tiny["expect"][0].startswith("top-1 82.1 % (ema); arXiv:2201.03545, Table 1")


def test_checkpoints_that_stay_for_good_are_named():
    found = lines("convnext_tiny_in1k", "checkpoints.keep.every_epochs=10", processes=32)["checkpoints"][0]
    assert "every 312 steps, the last 2, the best 1 and every 3,120th kept, " in found  # 10 × 312


def test_pipelines_are_numbered(tiny):
    assert [line.split("(")[0] for line in tiny["training"]] == [
        "1. random_resized_crop", "2. horizontal_flip", "3. rand_augment", "4. normalise ", "5. random_erasing",
        "6. mixup_cutmix",
    ]  # fmt: skip
    assert tiny["evaluation"][2] == (
        "3. top-1, top-5 and loss of the weights and their EMA every 1 epoch and at the end; ema counts"
    )


def test_the_text_of_one_process_and_one_epoch_is_singular():
    found = lines("digits_demo", "training.epochs=1", "scheduler.warmup_epochs=0")
    assert found["batch"][0].startswith("1 process × ")
    assert found["length"][0].startswith("1 epoch × 22 steps = 22 steps")


def test_what_is_off_says_so():
    found = lines("digits_demo", "ema=null", "evaluation=null")
    assert (found["EMA"], found["evaluation"]) == (["none"], ["1. never"])
    assert "and the best" not in found["checkpoints"][0]


def test_a_run_of_steps_is_told_in_steps():
    found = lines("digits_demo", "training={batch_size: 64, steps: 50}", "evaluation.every_epochs=null",
                  "evaluation.every_steps=7")  # fmt: skip
    assert found["length"][0].startswith("50 steps = 2.27 epochs of 22 steps"), found["length"]
    assert "every 7 steps" in found["evaluation"][-1]


def test_warnings_and_notes_have_their_lines():
    found = lines("digits_demo", "ema.decay=0.9999", "notes='one\n\n\n  two'")
    (warning,) = found["warning"]
    assert warning.startswith("the EMA will still hold 94% of the initial weights")  # 0.9999 ** (30 × 22)
    assert found["note"] == ["one", "two"], "empty lines are left out"


def test_what_saves_memory_has_a_line():
    assert "memory" not in lines("digits_demo")
    (found,) = lines("digits_demo", "distributed.activation_checkpointing=true")["memory"]
    assert found == "activations inside of blocks are recomputed in the backward pass"


def test_a_model_that_must_be_built_to_be_counted_says_so():
    assert "parameters: see --build" in lines("digits_demo", "model=timm/resnet18")["model"][0]
    assert "size: --build" in lines("digits_demo", "model=timm/resnet18")["checkpoints"][0]


@pytest.mark.parametrize("keys", ["warmup_steps: 7", "warmup_epochs: 0.5", "warmup_epochs: 0", ""])
def test_warm_up_steps_are_those_before_the_schedule_proper(keys):
    recipe = load_recipe("digits_demo", [f"scheduler={{name: cosine, {keys}}}"], plugins=False)
    # digits_demo: 1,438 // 64 = 22 steps an epoch
    wanted = {"warmup_steps: 7": 7, "warmup_epochs: 0.5": 11}.get(keys, 0)
    assert make_plan(recipe, Machine()).horizon.warmup_steps == wanted
