"""timm's train.py: every flag is translated, told to be left out, or refused; its args.yaml and --config files."""

import math

import pytest
import yaml

from convrun.contracts.scheduler import Horizon
from convrun.errors import UsageError
from convrun.importing import import_args_file, import_arguments
from convrun.importing.timm_flags import TRAIN_FLAGS
from convrun.importing.timm_models import DEFAULT_TAGS, OWN_MODELS, pretrained_config
from convrun.recipe.problems import RecipeError

# What a person who trains a ConvNeXt writes; each case below adds to it.
BASE = "--model convnext_tiny --opt adamw --lr 1e-3"
# flag -> (the words that give it another value than the default, the keys it becomes)
TRANSLATED = {
    "data-dir": ("--data-dir /d", {"data.root": "/d"}),
    "dataset": ("--dataset torch/cifar10 --data-dir /d", {"data.name": "cifar10", "data.download": False}),
    "train-split": ("--train-split part", {"data.train_folder": "part"}),
    "val-split": ("--val-split test", {"data.val_folder": "test"}),
    "dataset-download": ("--dataset-download --dataset torch/cifar100", {"data.download": True}),
    "model": ("--model convnextv2_atto", {"model.name": "convnextv2_atto"}),
    "pretrained": ("--pretrained", {"init.from": "timm:convnext_tiny.in12k_ft_in1k", "init.head": "keep"}),
    "pretrained-path": ("--pretrained-path a.pth", {"init.from": "a.pth", "init.head": "reinit"}),
    "initial-checkpoint": ("--initial-checkpoint a.pth", {"init.from": "a.pth", "init.head": "keep"}),
    "num-classes": ("--num-classes 10", {"model.num_classes": 10}),
    "img-size": ("--img-size 256", {"input_size": 256}),
    "input-size": ("--input-size 3 320 320", {"input_size": 320}),
    "crop-pct": ("--crop-pct 0.9", {"evaluation.crop_ratio": 0.9}),
    "mean": ("--mean 0.5", {"data.mean": [0.5, 0.5, 0.5]}),
    "std": ("--std 0.1 0.2 0.3", {"data.std": [0.1, 0.2, 0.3]}),
    "interpolation": ("--interpolation bilinear", {"evaluation.interpolation": "bilinear"}),
    "batch-size": ("-b 64", {"training.batch_size": 64, "training.micro_batch": 64}),
    "validation-batch-size": ("-vb 99", {"evaluation.batch_size": 99}),
    "grad-accum-steps": ("--grad-accum-steps 4", {"training.batch_size": 512, "training.micro_batch": 128}),
    "model-kwargs": (
        "--model-kwargs kernel_sizes=5 act_layer=silu",
        {"model.name": "timm/convnext_tiny", "model.options": {"kernel_sizes": 5, "act_layer": "silu"}},
    ),
    "head-init-scale": ("--head-init-scale 0.01", {"init.head_init_scale": 0.01}),
    "torchcompile": ("--torchcompile", {"training.compile": True}),
    "amp": ("--amp", {"training.precision": "fp16"}),
    "amp-dtype": ("--amp-dtype bfloat16 --amp", {"training.precision": "bf16"}),
    "native-amp": ("--native-amp", {"training.precision": "fp16"}),
    "opt": ("--opt lamb", {"optimizer.name": "timm/lamb"}),
    "opt-eps": ("--opt-eps 1e-6", {"optimizer.eps": 1e-6}),
    "opt-betas": ("--opt-betas 0.9 0.95", {"optimizer.betas": [0.9, 0.95]}),
    "momentum": ("--momentum 0.8 --opt sgd", {"optimizer.momentum": 0.8, "optimizer.nesterov": True}),
    "weight-decay": ("--weight-decay 0.05", {"optimizer.weight_decay": 0.05}),
    "clip-grad": ("--clip-grad 1", {"training.clip_grad_norm": 1.0}),
    "opt-kwargs": ("--opt-kwargs amsgrad=True", {"optimizer.options": {"amsgrad": True}}),
    "sched": ("--sched step", {"scheduler.name": "step", "scheduler.every_epochs": 90.0, "scheduler.factor": 0.1}),
    "lr": ("--lr 2e-3", {"optimizer.lr": 2e-3, "optimizer.lr_for_batch": None}),
    "lr-base": ("--opt sgd --lr 0 --lr-base 0.2", {"optimizer.lr": 0.2, "optimizer.lr_for_batch": 256}),
    "lr-base-size": ("--opt sgd --lr 0 --lr-base-size 512", {"optimizer.lr": 0.1, "optimizer.lr_for_batch": 512}),
    "lr-base-scale": ("--lr 0 --lr-base-scale sqrt -b 64", {"optimizer.lr": 0.05, "optimizer.lr_for_batch": None}),
    "warmup-lr": ("--warmup-lr 1e-6", {"scheduler.warmup_start_lr": 1e-6}),
    "min-lr": ("--min-lr 1e-5", {"scheduler.min_lr": 1e-5}),
    "epochs": ("--epochs 90", {"training.epochs": 90}),
    "decay-epochs": ("--decay-epochs 30 --sched step", {"scheduler.every_epochs": 30.0}),
    "decay-rate": ("--dr 0.5 --sched step", {"scheduler.factor": 0.5}),
    "warmup-epochs": ("--warmup-epochs 20", {"scheduler.warmup_epochs": 20}),
    "warmup-prefix": ("--warmup-prefix --epochs 90", {"training.epochs": 95, "scheduler.warmup_epochs": 5}),
    "scale": ("--scale 0.2 1", {"augmentations.0.scale": [0.2, 1.0]}),
    "ratio": ("--ratio 0.9 1.1", {"augmentations.0.ratio": [0.9, 1.1]}),
    "hflip": ("--hflip 0.3", {"augmentations.1.probability": 0.3}),
    "color-jitter": ("--color-jitter 0.2", {"augmentations.2.brightness": 0.2, "augmentations.2.hue": 0.0}),
    "aa": ("--aa rand-m9-mstd0.5-inc1", {"augmentations.2.policy": "rand-m9-mstd0.5-inc1"}),
    "bce-loss": ("--bce-loss", {"loss.name": "binary_cross_entropy", "loss.label_smoothing": 0.1}),
    "bce-sum": ("--bce-sum --bce-loss", {"loss.sum_classes": True}),
    "bce-target-thresh": ("--bce-target-thresh 0.2 --bce-loss", {"loss.target_threshold": 0.2}),
    "reprob": ("--reprob 0.25", {"augmentations.3.probability": 0.25, "augmentations.3.mode": "pixel"}),
    "remode": ("--remode const --reprob 0.25", {"augmentations.3.mode": "const"}),
    "mixup": ("--mixup 0.8", {"augmentations.3.mixup_alpha": 0.8, "augmentations.3.cutmix_alpha": 0.0}),
    "cutmix": ("--cutmix 1", {"augmentations.3.mixup_alpha": 0.0, "augmentations.3.cutmix_alpha": 1.0}),
    "mixup-prob": ("--mixup-prob 0.5 --mixup 0.8", {"augmentations.3.probability": 0.5}),
    "mixup-switch-prob": (
        "--mixup-switch-prob 0.3 --mixup 0.8 --cutmix 1",
        {"augmentations.3.switch_probability": 0.3},
    ),
    "smoothing": ("--smoothing 0", {"loss.name": "cross_entropy", "loss.label_smoothing": 0.0}),
    "train-interpolation": ("--train-interpolation bilinear", {"augmentations.0.interpolation": "bilinear"}),
    "drop": ("--drop 0.2", {"model.drop_rate": 0.2}),
    "drop-path": ("--drop-path 0.1", {"model.drop_path_rate": 0.1}),
    "model-ema": ("--model-ema", {"ema.decay": 0.9998, "evaluation.report": "ema"}),
    "model-ema-force-cpu": ("--model-ema-force-cpu --model-ema", {"evaluation.report": "model"}),
    "model-ema-decay": ("--model-ema-decay 0.99 --model-ema", {"ema.decay": 0.99}),
    "seed": ("--seed 7", {"seed": 7}),
    "log-interval": ("--log-interval 10", {"logging.every_steps": 10}),
    "val-interval": ("--val-interval 5", {"evaluation.every_epochs": 5, "checkpoints.every_epochs": 5}),
    "recovery-interval": ("--recovery-interval 100", {"checkpoints.every_steps": 100}),
    "checkpoint-hist": ("--checkpoint-hist 3", {"checkpoints.keep.best": 3}),
    "workers": ("-j 8", {"data.workers": 8}),
    "experiment": ("--experiment mine", {"name": "mine"}),
}
# flag -> (words, part of what is said of it in the recipe's comments)
TOLD = {
    "input-img-mode": ("--input-img-mode RGB", "RGB is convrun's way"),
    "resume": ("--resume last.pth.tar", "init.from=last.pth.tar"),
    "in-chans": ("--in-chans 3", "3 channels"),
    "device": ("--device cpu", "convrun run --device cpu"),
    "model-dtype": ("--model-dtype float32", "the weights are float32"),
    "clip-mode": ("--clip-mode value", "without --clip-grad nothing is clipped"),
    "layer-decay": ("--layer-decay 1.0", "1 is off"),
    "sched-on-updates": ("--sched-on-updates", "at every step"),
    "train-crop-mode": ("--train-crop-mode rrc", "rrc is random_resized_crop"),
    "color-jitter-prob": ("--color-jitter-prob 0.5 --aa rand-m9", "there is no colour jitter"),
    "recount": ("--recount 1", "nothing is erased"),
    "mixup-mode": ("--mixup-mode batch", "nothing is mixed"),
    "no-prefetcher": ("--no-prefetcher", "erases, then mixes"),
    "output": ("--output /out", "convrun run THIS.yaml --output /out"),
    "eval-metric": ("--eval-metric top1", "top1 is convrun's way"),
}
# flag -> (words, part of the refusal)
REFUSED = {
    "cutmix-minmax": ("--cutmix-minmax 0.2 0.8", "Beta"),
    "model-ema-warmup": ("--model-ema-warmup --model-ema", "constant"),
}
ALSO_REFUSED = [
    ("--dataset hfds/imagenet-1k", "folders of images and CIFAR"),
    ("--train-split train[:10%]", "a whole folder"),
    ("--input-img-mode L", "RGB"),
    ("--in-chans 1", "3 channels"),
    ("--input-size 3 224 320", "square"),
    ("--torchcompile cudagraphs", "inductor"),
    ("--model-dtype bfloat16", "float32"),
    ("--amp --amp-dtype float8", "float16 or bfloat16"),
    ("--clip-grad 1 --clip-mode agc", "norm of the whole gradient"),
    ("--layer-decay 0.7", "optimizer.layer_decay=0.7 optimizer.layer_decay_levels=block"),
    ("--sched plateau", "cosine and step"),
    ("--sched step --warmup-prefix", "intervals of step"),
    ("--train-crop-mode rkrc", "random resized crop"),
    ("--color-jitter-prob 0.5", "every image"),
    ("--aa augmix-m5", "not this policy"),
    ("--aa rand-m9 --train-interpolation lanczos", "RandAugment warps"),
    ("--reprob 0.2 --recount 3", "from 1 to 3"),
    ("--mixup 1 --mixup-mode elem", "mode batch"),
    ("--eval-metric top5", "best top-1"),
    ("--opt fusedadamw", "a package"),
    ("--opt adahessian", "second derivatives"),
    ("--opt sgd --opt-betas 0.9 0.99", "has none"),
    ("--model hf-hub:timm/convnext_tiny", "init.from"),
    ("--pretrained --head-init-scale 0.1", "scales new ones only"),
    ("--scale 0.5", "two numbers"),
    ("--crop-pct 1.1", "--crop-pct 1.1: evaluation.crop_ratio"),
    ("--drop-path 1.0", "--drop-path 1: model.drop_path_rate"),
]
# Another value than the default, for the flags whose fate stands in their table.
OTHER = {int: "7", float: "0.7", str: "other"}
FIXED = [flag for flag in TRAIN_FLAGS if flag.fate != "translated"]


def imported(words, **keys):
    return import_arguments([f"python train.py {BASE} {words}"], **keys)


def at(recipe, path):
    value = recipe.resolved()
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else value[step]
    return value


def comments_of(text):
    lines = text.partition("\nname: ")[0].partition("\n#\n")[2].splitlines()
    return " ".join(line.lstrip("# ") for line in lines)


def test_each_translated_flag_is_in_one_of_the_tables():
    translated = [flag.name for flag in TRAIN_FLAGS if flag.fate == "translated"]
    assert sorted([*TRANSLATED, *TOLD, *REFUSED, "config"]) == sorted(translated)


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_flag_is_translated(name):
    words, keys = TRANSLATED[name]
    found = imported(words)
    assert {path: at(found.recipe, path) for path in keys} == keys
    assert found.recipe.resolved() != imported("").recipe.resolved()
    assert f"--{name}" in found.text.partition("\nname: ")[2], "the flag is named beside its key"


@pytest.mark.parametrize("name", TOLD)
def test_a_flag_that_is_left_out_is_told_in_a_comment(name):
    words, reason = TOLD[name]
    assert reason in comments_of(imported(words).text)
    assert f"--{name}" in comments_of(imported(words).text)


@pytest.mark.parametrize(("words", "reason"), [*REFUSED.values(), *ALSO_REFUSED])
def test_what_no_recipe_can_say_is_refused_by_its_flag(words, reason):
    with pytest.raises(UsageError) as error:
        imported(words)
    assert reason in str(error.value)
    assert any(word in str(error.value) for word in words.split() if word.startswith("--"))


@pytest.mark.parametrize("flag", FIXED, ids=lambda flag: flag.name)
def test_a_flag_whose_fate_is_fixed_is_named_with_the_reason(flag):
    value = [] if flag.type is None else [OTHER[flag.type]]
    words = " ".join([f"--{flag.name}", *value])
    if flag.fate == "refused":
        with pytest.raises(UsageError) as error:
            imported(words)
        assert f"--{flag.name}" in str(error.value)
        assert flag.why in str(error.value)
    else:
        assert f"{words}: {flag.why}" in comments_of(imported(words).text)


def test_a_long_command_as_a_whole():
    words = (
        "--model convnext_atto --opt adamw --lr 1e-3 --weight-decay .05 --aa rand-m9-mstd0.5-inc1 --mixup .5 "
        "--cutmix 1 --reprob .3 --drop-path .1 --sched-on-updates --warmup-prefix --amp --model-ema "
        "--train-interpolation bicubic"
    )
    recipe = import_arguments([f"torchrun --nproc_per_node=8 train.py /data {words}"]).recipe
    assert recipe.data.values["root"] == "/data"
    assert (recipe.training.batch_size, recipe.training.micro_batch) == (1024, 128)
    names = [choice.name for choice in recipe.augmentations]
    assert names == ["random_resized_crop", "horizontal_flip", "rand_augment", "random_erasing", "mixup_cutmix"]


# The script's own ways ---------------------------------------------------------------------------------------------


def test_defaults_of_the_script_are_written_out():
    recipe = import_arguments(["python train.py"]).recipe
    expected = {
        "model.name": "timm/resnet50", "model.num_classes": 1000, "optimizer.name": "sgd", "optimizer.momentum": 0.9,
        "optimizer.nesterov": True, "optimizer.weight_decay": 2e-5, "optimizer.lr": 0.1, "optimizer.lr_for_batch": 256,
        "training.epochs": 300, "training.batch_size": 128, "scheduler.warmup_epochs": 5, "seed": 42,
        "scheduler.warmup_start_lr": 1e-5, "scheduler.min_lr": 0.0, "loss.label_smoothing": 0.1,
        "evaluation.crop_ratio": 0.875,
    }  # fmt: skip
    assert {path: at(recipe, path) for path in expected} == expected
    names = [choice.name for choice in recipe.augmentations]
    assert names == ["random_resized_crop", "horizontal_flip", "color_jitter"]


@pytest.mark.parametrize("opt", ["adamw", "lamb", "adan", "nadam"])
def test_lr_base_scales_with_the_root_of_the_batch_for_adaptive_optimizers(opt):
    recipe = import_arguments([f"torchrun --nproc_per_node=4 train.py --opt {opt} --lr-base 0.002 -b 64"]).recipe
    is_adaptive = "ada" in opt or "lamb" in opt  # timm's own test of the name
    lr = recipe.optimizer.values["lr"]
    assert (lr, recipe.optimizer.values["lr_for_batch"]) == (0.002, None if is_adaptive else 256)
    recipe = import_arguments([f"torchrun --nproc_per_node=8 train.py --opt {opt} --lr-base 0.002 -b 128"]).recipe
    assert math.isclose(recipe.optimizer.values["lr"], 0.004 if is_adaptive else 0.002)


@pytest.mark.parametrize(("words", "told"), [
    ("--warmup-epochs 0 --sched-on-updates", []),
    ("--warmup-epochs 0", ["once an epoch"]),
    ("--warmup-epochs 5 --sched-on-updates --warmup-prefix", ["a step later"]),
    ("--warmup-epochs 5", ["once an epoch", "spans the rest"]),
    ("--sched step --warmup-epochs 0", []),
    ("--sched step", ["one stair an epoch"]),
])  # fmt: skip
def test_where_the_schedules_differ_the_comments_say_so(words, told):
    text = comments_of(imported(f"{words} --train-interpolation bicubic --smoothing 0.1").text)
    said = [part for part in ("once an epoch", "spans the rest", "a step later", "one stair an epoch") if part in text]
    assert said == told


def test_without_warm_up_the_cosine_on_updates_is_timms():
    """There the lr of update u is min + (lr - min)(1 + cos(pi u / T)) / 2, T = epochs x updates an epoch."""
    recipe = imported("--warmup-epochs 0 --sched-on-updates --min-lr 1e-5 --epochs 3").recipe
    lr = recipe.scheduler.create(Horizon(30, 10, 1e-3))
    by_timm = [1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * u / 30)) for u in range(30)]
    assert [lr(u) for u in range(30)] == pytest.approx(by_timm, rel=1e-12)


def test_a_binary_loss_without_mixing_and_smoothing_has_no_effect():
    found = imported("--bce-loss --smoothing 0")
    assert found.recipe.loss.name == "cross_entropy"
    assert "ignores it without mixing and without smoothing" in found.text


def test_the_prefetcher_mixes_before_it_erases():
    words = "--mixup 0.8 --reprob 0.25"
    assert "mixes first, then erases" in imported(words).text
    assert "mixes first, then erases" not in imported(f"{words} --no-prefetcher").text


def test_random_interpolation_is_told():
    assert "bilinear or bicubic at random" in comments_of(imported("").text)
    assert "at random" not in imported("--train-interpolation bicubic").text


def test_evaluation_always_crops_as_train_py_does():
    """train.py does not hand the model's crop mode on, so 384 is cropped too, never squashed."""
    assert imported("--img-size 384 --crop-pct 1.0").recipe.evaluation.crop_ratio == 1.0
    assert imported("--model convnext_tiny.fb_in22k_ft_in1k_384").recipe.evaluation.crop_ratio == 1.0


def test_no_validation_split_is_no_evaluation():
    recipe = imported("--val-split ''").recipe
    assert recipe.evaluation is None
    assert recipe.data.values["val_folder"] is None


@pytest.mark.parametrize("name", OWN_MODELS)
def test_what_timm_knows_of_a_model_is_what_timm_says(name):
    timm = pytest.importorskip("timm")
    assert timm.get_pretrained_cfg(name).tag == DEFAULT_TAGS[name]
    tags = timm.list_pretrained(f"{name}.*")
    assert tags
    for model in [name, *tags]:
        theirs, ours = timm.get_pretrained_cfg(model), pretrained_config(model)
        if "lvd1689m" in model:  # trained on images without classes, at 256 pixels
            assert not ours.is_known
            continue
        mean = ours.statistics[0] if ours.statistics else (0.485, 0.456, 0.406)
        assert ours.is_known
        assert (ours.size, ours.crop, ours.classes) == (theirs.input_size[1], theirs.crop_pct, theirs.num_classes), (
            model
        )
        assert theirs.mean == mean, model


def test_an_unknown_model_is_timms_and_what_is_assumed_is_told():
    found = imported("--model resnet50")
    assert found.recipe.model.name == "timm/resnet50"
    assert "convrun import does not know" in comments_of(found.text)


@pytest.mark.parametrize(("words", "source", "head"), [
    ("--pretrained --model convnext_base.fb_in22k", "timm:convnext_base.fb_in22k", "keep"),
    ("--pretrained --model convnext_base.fb_in22k --num-classes 1000", "timm:convnext_base.fb_in22k", "reinit"),
    ("--pretrained --model convnext_base.fb_in1k --num-classes 1000", "timm:convnext_base.fb_in1k", "keep"),
    ("--pretrained --model convnextv2_atto.fcmae", "timm:convnextv2_atto.fcmae", "reinit"),
    ("--pretrained --model resnet50", "timm:resnet50", "keep"),
    ("--pretrained --model resnet50 --num-classes 7", "timm:resnet50", "reinit"),
])  # fmt: skip
def test_the_head_of_pretrained_weights(words, source, head):
    init = imported(words).recipe.init
    assert (init.from_, init.head) == (source, head)


@pytest.mark.parametrize(("opt", "name", "values"), [
    ("adamw", "adamw", {"eps": 1e-8, "betas": (0.9, 0.999)}),
    ("adamp", "adamp", {"wd_ratio": 0.01, "nesterov": True}),
    ("momentum", "sgd", {"nesterov": False}),
    ("lion", "lion", {"betas": (0.9, 0.99)}),
    ("lookahead_radam", "timm/lookahead_radam", {"options": None}),
    ("nadamw --opt-eps 1e-7 --momentum 0.8", "timm/nadamw", {"options": {"eps": 1e-7, "momentum": 0.8}}),
    ("sgd --opt-kwargs dampening=0.1", "timm/sgd", {"options": {"dampening": 0.1}}),
])  # fmt: skip
def test_optimizers_by_timms_names(opt, name, values):
    optimizer = imported(f"--opt {opt}").recipe.optimizer
    assert optimizer.name == name
    assert {key: optimizer.values[key] for key in values} == values


# Files -------------------------------------------------------------------------------------------------------------


def written(path, **values):
    """A file such as train.py leaves: every flag, the defaults too."""
    everything = {"data": None, **{flag.dest: flag.default for flag in TRAIN_FLAGS}, **values}
    path.write_text(yaml.safe_dump(everything))
    return path


def test_args_yaml_equals_its_command(tmp_path):
    path = written(tmp_path / "args.yaml", model="convnext_nano", opt="adamw", lr=0.001, aa="rand-m7", data="/d",
                   mixup=0.2, amp=True, model_ema=True, opt_kwargs={"foreach": False}, batch_size=64)  # fmt: skip
    words = "--model convnext_nano --aa rand-m7 --mixup 0.2 --amp --model-ema --opt-kwargs foreach=False -b 64"
    by_command = import_arguments([f"torchrun --nproc_per_node=4 train.py /d --opt adamw --lr 0.001 {words}"]).recipe
    assert import_args_file(path, processes=4).recipe.resolved() == by_command.resolved()


def test_args_yaml_does_not_say_how_many_processes(tmp_path):
    found = import_args_file(written(tmp_path / "args.yaml", batch_size=32))
    assert found.recipe.training.batch_size == 32
    assert "--processes N multiplies the batch" in comments_of(found.text)


def test_args_yaml_of_another_version(tmp_path):
    path = written(tmp_path / "args.yaml", some_new_flag=None, amp_impl="native")
    assert "some_new_flag: unknown to convrun, and off" in import_args_file(path).text
    path = written(tmp_path / "args.yaml", mixupp=0.5, lr="fast", epochs=1.5, amp=1, opt_betas=0.9, opt_kwargs=[1])
    with pytest.raises(UsageError) as error:
        import_args_file(path)
    said = str(error.value)
    assert "mixupp: not a flag of timm's train.py; did you mean mixup?" in said
    assert "lr: a number expected, got 'fast'" in said
    assert "epochs: a whole number expected, got 1.5" in said
    assert "amp: true or false expected, got 1" in said
    assert "opt_betas: a list, each a number, expected, got 0.9" in said
    assert "opt_kwargs: a map expected, got [1]" in said


def test_args_yaml_that_is_no_such_file(tmp_path):
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("a: [")
    for name in ("list.yaml", "broken.yaml", "missing.yaml"):
        with pytest.raises(RecipeError, match=name):
            import_args_file(tmp_path / name)


def test_a_config_file_lies_below_the_flags(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model: convnext_nano\nlr: 0.5\nepochs: 7\n")
    recipe = import_arguments([f"python train.py -c {path} --opt adamw --lr 0.001"]).recipe
    assert (recipe.model.name, recipe.training.epochs) == ("convnext_nano", 7)
    assert recipe.optimizer.values["lr"] == 0.001
