"""main.py and run_with_submitit.py: every flag is translated, told to be left out, or refused."""

import pytest

from convrun.errors import UsageError
from convrun.importing import import_arguments
from convrun.importing.released_data import classes_of_checkpoint
from convrun.importing.released_flags import MAIN_FLAGS, SUBMITIT_FLAGS
from convrun.plan.warmup import horizon_of, warmed_up

# flag -> (the words that give it another value than the default, the keys it becomes)
TRANSLATED = {
    "batch_size": ("--batch_size 32", {"training.batch_size": 32, "training.micro_batch": 32}),
    "epochs": ("--epochs 90", {"training.epochs": 90}),
    "update_freq": ("--update_freq 4", {"training.batch_size": 256, "training.micro_batch": 64}),
    "model": ("--model convnext_isotropic_base", {"model.name": "convnext_isotropic_base"}),
    "drop_path": ("--drop_path 0.4", {"model.drop_path_rate": 0.4}),
    "input_size": ("--input_size 384", {"input_size": 384}),
    "layer_scale_init_value": ("--layer_scale_init_value 0", {"model.layer_scale_init": None}),
    "model_ema": ("--model_ema true", {"ema.decay": 0.9999, "evaluation.report": "model"}),
    "model_ema_decay": ("--model_ema_decay 0.99 --model_ema true", {"ema.decay": 0.99}),
    "model_ema_eval": ("--model_ema_eval true --model_ema true", {"evaluation.report": "ema"}),
    "opt": ("--opt momentum", {"optimizer.name": "sgd", "optimizer.nesterov": False, "optimizer.momentum": 0.9}),
    "opt_eps": ("--opt_eps 1e-6", {"optimizer.eps": 1e-6}),
    "opt_betas": ("--opt_betas 0.9 0.95", {"optimizer.betas": [0.9, 0.95]}),
    "clip_grad": ("--clip_grad 5 --use_amp true", {"training.clip_grad_norm": 5.0}),
    "momentum": ("--momentum 0.8 --opt sgd", {"optimizer.momentum": 0.8, "optimizer.nesterov": True}),
    "weight_decay": ("--weight_decay 1e-8", {"optimizer.weight_decay": 1e-8}),
    "lr": ("--lr 5e-5", {"optimizer.lr": 5e-5, "optimizer.lr_for_batch": None}),
    "layer_decay": ("--layer_decay 0.7 --model convnext_base", {"optimizer.layer_decay": 0.7}),
    "min_lr": ("--min_lr 1e-5", {"scheduler.min_lr": 1e-5}),
    "warmup_epochs": ("--warmup_epochs 50", {"scheduler.warmup_epochs": 50, "scheduler.warmup_steps": None}),
    "warmup_steps": ("--warmup_steps 500", {"scheduler.warmup_epochs": None, "scheduler.warmup_steps": 500}),
    "color_jitter": ("--color_jitter 0.2 --aa ''", {"augmentations.2.brightness": 0.2, "augmentations.2.hue": 0.0}),
    "aa": ("--aa rand-m5", {"augmentations.2.policy": "rand-m5"}),
    "smoothing": ("--smoothing 0.2", {"loss.label_smoothing": 0.2}),
    "train_interpolation": (
        "--train_interpolation bilinear",
        {"augmentations.0.interpolation": "bilinear", "augmentations.2.interpolation": "bilinear"},
    ),
    "crop_pct": ("--crop_pct 0.9", {"evaluation.crop_ratio": 0.9}),
    "reprob": ("--reprob 0.1", {"augmentations.3.probability": 0.1}),
    "remode": ("--remode const", {"augmentations.3.mode": "const"}),
    "mixup": ("--mixup 0.2", {"augmentations.4.mixup_alpha": 0.2}),
    "cutmix": ("--cutmix 0.5", {"augmentations.4.cutmix_alpha": 0.5}),
    "mixup_prob": ("--mixup_prob 0.7", {"augmentations.4.probability": 0.7}),
    "mixup_switch_prob": ("--mixup_switch_prob 0.3", {"augmentations.4.switch_probability": 0.3}),
    "finetune": ("--finetune a.pth", {"init.from": "a.pth", "init.head": "keep", "init.weights": "model"}),
    "head_init_scale": ("--head_init_scale 0.001", {"init.head_init_scale": 0.001}),
    "model_key": ("--model_key model_ema --finetune a.pth", {"init.weights": "ema"}),
    "data_path": ("--data_path /d/in1k", {"data.root": "/d/in1k", "data.num_classes": 1000}),
    "eval_data_path": (
        "--eval_data_path /d/val --data_path /d/train --data_set image_folder --nb_classes 7",
        {"data.root": "/d", "data.train_folder": "train", "data.val_folder": "val", "data.num_classes": 7},
    ),
    "nb_classes": (
        "--nb_classes 21841 --data_set image_folder --data_path /d/22k --disable_eval true",
        {"data.num_classes": 21841, "data.train_images": 14_197_122, "data.val_folder": None},
    ),
    "imagenet_default_mean_and_std": ("--imagenet_default_mean_and_std no", {"data.mean": [0.5] * 3}),
    "data_set": ("--data_set CIFAR --data_path /d", {"data.name": "cifar100", "data.download": True}),
    "seed": ("--seed 7", {"seed": 7}),
    "save_ckpt_freq": ("--save_ckpt_freq 5", {"checkpoints.every_epochs": 5}),
    "save_ckpt_num": ("--save_ckpt_num 4", {"checkpoints.keep.last": 4}),
    "disable_eval": ("--disable_eval true", {"evaluation": None}),
    "num_workers": ("--num_workers 3", {"data.workers": 3}),
    "use_amp": ("--use_amp true", {"training.precision": "fp16"}),
    # run_with_submitit.py's own
    "ngpus": ("--ngpus 4", {"training.batch_size": 2 * 4 * 64}),
    "nodes": ("--nodes 3", {"training.batch_size": 3 * 8 * 64}),
    "job_name": ("--job_name mine", {"name": "mine"}),
}
# flag -> (words, part of what is said of it in the recipe's comments)
TOLD = {
    "model_ema_force_cpu": ("--model_ema_force_cpu true", "stays the same"),
    "resplit": ("--resplit true", "never uses it"),
    "mixup_mode": ("--mixup_mode batch", "convrun's way"),
    "model_prefix": ("--model_prefix backbone. --finetune a.pth", "takes a prefix off by itself"),
    "weight_decay_end": ("--weight_decay_end 0.05", "equals --weight_decay"),
    "output_dir": ("--output_dir /out", "convrun run THIS.yaml --output /out"),
    "log_dir": ("--log_dir /logs", "in the run folder"),
    "device": ("--device cpu", "convrun run --device cpu"),
    "resume": ("--resume run/checkpoint-9.pth", "init.from=run/checkpoint-9.pth"),
    "auto_resume": ("--auto_resume false", "convrun run --resume auto, never or must"),
    "save_ckpt": ("--save_ckpt false", "always saves"),
    "start_epoch": ("--start_epoch 0", "0 is the beginning"),
    "dist_eval": ("--dist_eval false", "each image counts once"),
    "pin_mem": ("--pin_mem false", "speed"),
    "world_size": ("--world_size 8", "from its launcher"),
    "local_rank": ("--local_rank 1", "launcher"),
    "dist_on_itp": ("--dist_on_itp true", "launcher"),
    "dist_url": ("--dist_url tcp://a:1", "launcher"),
    "enable_wandb": ("--enable_wandb true", "add {name: wandb, project: convnext} to logging.to"),
    "project": ("--project mine", "Weights & Biases"),
    "wandb_ckpt": ("--wandb_ckpt true", "Weights & Biases"),
    "timeout": ("--timeout 24", "24 hours"),
    "job_dir": ("--job_dir /out", "convrun run THIS.yaml --output /out"),
    "partition": ("--partition gpu", "partition gpu"),
    "use_volta32": ("--use_volta32", "GPUs of 32 GB"),
    "comment": ("--comment deadline", "comment 'deadline'"),
}
# flag -> (words, part of the refusal)
REFUSED = {
    "recount": ("--recount 3", "random number of rectangles from 1 to 3"),
    "cutmix_minmax": ("--cutmix_minmax 0.2 0.8", "Beta"),
    "eval": ("--eval true", "trains nothing"),
}
ALSO_REFUSED = [
    ("--weight_decay_end 0.1", "weight decay stays the same"),
    ("--mixup_mode elem", "mode batch"),
    ("--start_epoch 10", "skips part of the schedule"),
    ("--aa original-mstd0.5", "not this policy"),
    ("--aa rand-mx", "not understood"),
    ("--train_interpolation random", "bicubic or bilinear"),
    ("--opt nadam", "timm 0.3.2's nadam"),
    ("--opt sgd --opt_betas 0.9 0.99", "has none"),
    ("--model resnet50", "the released code has convnext_tiny"),
    ("--model convnext_tinny", "did you mean convnext_tiny?"),
    ("--finetune a.pth --model_key state_dict", "model, module or model_ema"),
    ("--data_set image_folder --data_path /d", "--eval_data_path, which is missing"),
    ("--data_set image_folder --data_path d --eval_data_path /e", "no folder in common"),
    # what the recipe's own checks refuse is told by the flag
    ("--lr 0", "--lr 0: optimizer.lr must be greater than 0, got 0.0"),
    ("--layer_decay 1.5", "--layer_decay 1.5: optimizer.layer_decay must be less than or equal to 1"),
    ("--batch_size 0", "--batch_size 0: training.batch_size"),
    ("--crop_pct 1.2", "--crop_pct 1.2: evaluation.crop_ratio"),
    ("--remode blur", "--remode blur: augmentations.3.mode"),
    ("--smoothing 1", "--smoothing 1: loss.label_smoothing"),
    ("--opt_betas 0.9", "--opt_betas 0.9: optimizer.betas"),
    ("--seed -1", "--seed -1: seed"),
]  # fmt: skip


def imported(words, script="main.py", **keys):
    if any(f"--{flag.name} " in f"{words} " for flag in SUBMITIT_FLAGS):
        script = "run_with_submitit.py"
    return import_arguments([f"python {script} {words}"], **keys)


def comments_of(text):
    """What stands between the command and the recipe, on one line."""
    lines = text.partition("\nname: ")[0].partition("\n#\n")[2].splitlines()
    return " ".join(line.lstrip("# ") for line in lines)


def at(recipe, path):
    value = recipe.resolved()
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


def test_each_flag_of_both_scripts_is_in_one_of_the_tables():
    assert sorted([*TRANSLATED, *TOLD, *REFUSED]) == sorted(flag.name for flag in (*MAIN_FLAGS, *SUBMITIT_FLAGS))


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_flag_is_translated(name):
    words, keys = TRANSLATED[name]
    found = imported(words)
    assert {path: at(found.recipe, path) for path in keys} == keys
    before = imported("").recipe.resolved()
    assert found.recipe.resolved() != before
    assert f"--{name}" in found.text.partition("\nname: ")[2], "the flag is named beside its key"


@pytest.mark.parametrize("name", TOLD)
def test_a_flag_that_is_left_out_is_told_in_a_comment(name):
    words, reason = TOLD[name]
    found = imported(words)
    assert reason in comments_of(found.text)


@pytest.mark.parametrize(("words", "reason"), [*REFUSED.values(), *ALSO_REFUSED])
def test_what_no_recipe_can_say_is_refused_by_its_flag(words, reason):
    with pytest.raises(UsageError) as error:
        imported(words)
    assert reason in str(error.value)
    assert any(word in str(error.value) for word in words.split() if word.startswith("--"))


def test_all_refusals_come_at_once():
    with pytest.raises(UsageError) as error:
        imported("--recount 3 --eval true --opt nadam")
    assert len(str(error.value).splitlines()) == 3


# The quirks --------------------------------------------------------------------------------------------------------


def test_defaults_of_the_script_are_written_out():
    recipe = imported("").recipe
    expected = {
        "optimizer.lr": 4e-3, "optimizer.weight_decay": 0.05, "optimizer.betas": [0.9, 0.999], "optimizer.eps": 1e-8,
        "scheduler.warmup_epochs": 20, "scheduler.min_lr": 1e-6, "training.epochs": 300, "training.batch_size": 64,
        "loss.label_smoothing": 0.1, "model.drop_path_rate": 0.0, "training.precision": "float32", "input_size": 224,
    }  # fmt: skip
    assert {path: at(recipe, path) for path in expected} == expected
    names = [item["name"] for item in recipe.resolved()["augmentations"]]
    assert names == ["random_resized_crop", "horizontal_flip", "rand_augment", "random_erasing", "mixup_cutmix"]
    assert recipe.ema is None


def test_clip_grad_has_no_effect_without_amp():
    found = imported("--clip_grad 1.0")
    assert found.recipe.training.clip_grad_norm is None
    assert "--clip_grad 1: main.py clips only under --use_amp true" in found.text


def test_color_jitter_has_no_effect_beside_a_policy():
    found = imported("--color_jitter 0.3")
    assert "color_jitter" not in [c.name for c in found.recipe.augmentations]
    assert "--color_jitter 0.3: the script jitters colours only where --aa is empty" in found.text


def test_warm_up_steps_replace_epochs_and_need_them_in_the_script():
    assert "replaces it" in imported("--warmup_steps 100 --warmup_epochs 3").text
    assert "main.py itself stops" in imported("--warmup_steps 100 --warmup_epochs 0").text
    recipe = imported("--warmup_steps 100").recipe
    horizon = horizon_of(recipe.scheduler.settings, 1000, 10, 4e-3)
    lr = warmed_up(recipe.scheduler.create(horizon), horizon, 0.0)
    assert [lr(0), lr(99), lr(100)] == [0, 4e-3, 4e-3]


@pytest.mark.parametrize(("words", "keys"), [
    ("--mixup 0", {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "switch_probability": 0.5}),
    ("--mixup_switch_prob 0", {"mixup_alpha": 0.8, "cutmix_alpha": 0.0}),
    ("--mixup_switch_prob 1", {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}),
])  # fmt: skip
def test_one_kind_of_mixing_alone(words, keys):
    values = imported(words).recipe.resolved()["augmentations"][4]
    assert {key: values[key] for key in keys} == keys


@pytest.mark.parametrize("words", ["--mixup 0 --cutmix 0", "--mixup_prob 0"])
def test_without_mixing_labels_are_smoothed_all_the_same(words):
    recipe = imported(words).recipe
    assert "mixup_cutmix" not in [c.name for c in recipe.augmentations]
    assert recipe.loss.values["label_smoothing"] == 0.1


def test_from_384_on_and_up_to_32_pixels_the_crop_ratio_has_no_effect():
    for size in (384, 32):
        found = imported(f"--input_size {size} --crop_pct 0.9")
        assert found.recipe.evaluation.crop_ratio == "auto"
        assert "--crop_pct 0.9:" in found.text


def test_small_images_are_cropped_from_a_margin():
    first = imported("--input_size 32 --data_set CIFAR").recipe.augmentations[0]
    assert (first.name, first.values["padding"]) == ("random_crop", 4)


def test_classes_are_those_of_the_data_set_whatever_nb_classes_says():
    assert imported("--nb_classes 10").recipe.data.values["num_classes"] == 1000
    assert "--nb_classes 10: --data_set IMNET has 1000" in imported("--nb_classes 10").text


def test_the_average_is_reported_only_where_it_is_kept_and_evaluated():
    assert imported("--model_ema_eval true").recipe.evaluation.report == "model"
    assert imported("--model_ema true").recipe.evaluation.report == "model"


def test_layer_decay_of_models_that_the_script_refuses_is_convruns_own():
    assert "main.py refuses it for convnext_tiny" in imported("--layer_decay 0.8").text
    assert "main.py refuses it" not in imported("--layer_decay 0.8 --model convnext_base").text


@pytest.mark.parametrize(("opt", "name", "values"), [
    ("adamw", "adamw", {"eps": 1e-8}),
    ("AdamP", "adamp", {"wd_ratio": 0.01, "nesterov": True, "betas": (0.9, 0.999)}),
    ("nesterov", "sgd", {"nesterov": True, "weight_decay": 0.05}),
    ("adam", "timm/adam", {"options": {"eps": 1e-8}}),
])  # fmt: skip
def test_optimizers_by_the_scripts_names(opt, name, values):
    optimizer = imported(f"--opt {opt}").recipe.optimizer
    assert optimizer.name == name
    assert {key: optimizer.values[key] for key in values} == values


@pytest.mark.parametrize(("file", "classes"), [
    ("convnext_tiny_1k_224_ema.pth", 1000),
    ("convnext_base_22k_224.pth", 21841),
    ("https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_1k_384.pth", 1000),
    ("convnext_iso_small_1k_224_ema.pth", 1000),
    ("/data/in22k/checkpoint-best.pth", None),
    ("checkpoint.pth", None),
])  # fmt: skip
def test_classes_of_a_checkpoint_by_its_published_name(file, classes):
    assert classes_of_checkpoint(file) == classes


@pytest.mark.parametrize(("words", "keys", "head", "scale"), [
    ("--finetune convnext_base_22k_224.pth --head_init_scale 0.001", {}, "reinit", 0.001),
    ("--finetune convnext_base_1k_224_ema.pth --head_init_scale 0.001", {}, "keep", 1.0),
    ("--finetune convnext_base_1k_224_ema.pth --data_set CIFAR", {}, "reinit", 1.0),
    ("--finetune mine.pth --head_init_scale 0.001", {}, "keep", 1.0),
    ("--finetune mine.pth --head_init_scale 0.001", {"head": "reinit"}, "reinit", 0.001),
    ("--finetune convnext_base_22k_224.pth", {"head": "keep"}, "keep", 1.0),
])  # fmt: skip
def test_the_head_is_kept_where_the_classes_agree(words, keys, head, scale):
    init = imported(words, **keys).recipe.init
    assert (init.head, init.head_init_scale) == (head, scale)


def test_an_unknown_checkpoint_keeps_its_head_and_the_comments_tell_the_other_way():
    text = imported("--finetune mine.pth --head_init_scale 0.001").text
    assert "init.head=reinit init.head_init_scale=0.001" in comments_of(text)


def test_folders_without_evaluation_are_their_own_root():
    words = "--data_set image_folder --data_path /d/22k/ --nb_classes 5 --disable_eval true --eval_data_path /e"
    data = imported(words).recipe.data.values
    assert (data["root"], data["train_folder"], data["val_folder"]) == ("/d/22k", ".", None)


def test_folders_below_one_another():
    words = "--data_set image_folder --data_path d --eval_data_path d/val --nb_classes 5"
    data = imported(words).recipe.data.values
    assert (data["root"], data["train_folder"], data["val_folder"]) == ("d", ".", "val")
