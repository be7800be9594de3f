import pytest

from convrun.recipe.tree import DEEPEST


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=3", 3),
        (" seed = 3", 3),
        ("seed=0o17", 15),
        ("summary=on", "on"),
        ("summary='3'", "3"),
        ("summary=a = b", "a = b"),
        ('summary="it\'s"', "it's"),
        ("notes=|\n  two\n  lines", "two\nlines"),
    ],
)
def test_a_top_level_key_is_set_as_yaml_would(load, override, value):
    assert getattr(load(WHOLE, override), override.partition("=")[0].strip()) == value


WHOLE = """\
model: {name: convnext_atto, drop_path_rate: 0.1}
data: {name: synthetic, train_images: 100, val_images: 20}
augmentations: [horizontal_flip, {name: mixup_cutmix, mixup_alpha: 0.8}]
optimizer: {name: adamw, lr: 4e-3}
scheduler: {name: cosine, warmup_epochs: 2}
training: {epochs: 5, batch_size: 10}
"""


def test_a_key_of_a_section_is_set(load):
    recipe = load(WHOLE, "optimizer.lr=1e-3", "model.drop_rate=0.2", "checkpoints.keep.last=5")
    assert recipe.optimizer.values["lr"] == 0.001
    assert (recipe.model.values["drop_rate"], recipe.model.values["drop_path_rate"]) == (0.2, 0.1)
    assert recipe.checkpoints.keep.last == 5


def test_a_section_that_is_not_there_is_made(load):
    assert load(WHOLE, "ema.decay=0.9").ema.decay == 0.9
    assert load(WHOLE, "loss.label_smoothing=0.2").loss.values["label_smoothing"] == 0.2


def test_a_section_that_is_off_is_turned_on(load):
    assert load(WHOLE + "ema: null\n", "ema.decay=0.9").ema.decay == 0.9


def test_a_list_item_is_reached_by_its_number_or_its_components_name(load):
    by_number = load(WHOLE, "augmentations.1.mixup_alpha=0.3")
    by_name = load(WHOLE, "augmentations.mixup_cutmix.mixup_alpha=0.3")
    assert by_number.augmentations == by_name.augmentations
    assert by_name.augmentations[1].values["mixup_alpha"] == 0.3


def test_an_item_that_is_only_a_name_takes_keys(load):
    assert load(WHOLE, "augmentations.0.probability=0.9").augmentations[0].values["probability"] == 0.9
    assert load(WHOLE, "augmentations.0=random_crop").augmentations[0].name == "random_crop"


def test_a_number_within_a_list_is_set(load):
    assert load(WHOLE, "data.mean=[0.1, 0.2, 0.3]", "data.mean.1=0.5").data.values["mean"] == (0.1, 0.5, 0.3)


def test_a_list_or_a_map_is_set_whole(load):
    assert load(WHOLE, "augmentations=[]").augmentations == ()
    assert load(WHOLE, "training={batch_size: 20, steps: 7}").training.epochs is None
    assert load(WHOLE, "optimizer={name: sgd, lr: 1}").optimizer.name == "sgd"


@pytest.mark.parametrize("form", ["model=convnext_tiny", "model.name=convnext_tiny", "model={name: convnext_tiny}"])
def test_another_name_replaces_the_section(load, form):
    recipe = load(WHOLE, form)
    assert (recipe.model.name, recipe.model.values["drop_path_rate"]) == ("convnext_tiny", 0.0)


@pytest.mark.parametrize("form", ["model=convnext_atto", "model.name=convnext_atto"])
def test_the_same_name_keeps_the_sections_keys(load, form):
    assert load(WHOLE, form).model.values["drop_path_rate"] == 0.1


def test_null_unsets_a_key_or_turns_a_section_off(load):
    assert load(WHOLE, "scheduler.warmup_epochs=null").scheduler.values["warmup_epochs"] is None
    assert load(WHOLE, "evaluation=null").evaluation is None
    assert load(WHOLE + "ema: {decay: 0.9}\n", "ema=~").ema is None


def test_the_last_override_of_a_key_counts(load):
    assert load(WHOLE, "seed=1", "seed=2").seed == 2
    assert load(WHOLE, "model=convnext_tiny", "model.drop_rate=0.3").model.values["drop_rate"] == 0.3
    assert load(WHOLE, "model.drop_rate=0.3", "model=convnext_tiny").model.values["drop_rate"] == 0.0


def test_an_override_counts_more_than_file_and_parents(write, load):
    write(WHOLE, "parent.yaml")
    recipe = load("extends: parent\nseed: 1\ntraining: {epochs: 6}\n", "seed=2", "training.epochs=8")
    assert (recipe.seed, recipe.training.epochs) == (2, 8)


def test_an_override_is_filled_in_from_the_environment(load, monkeypatch):
    monkeypatch.setenv("CONVRUN_SEED", "12")
    assert load(WHOLE, "seed=${env:CONVRUN_SEED}").seed == 12


@pytest.mark.parametrize(
    ("override", "key", "message"),
    [
        ("seed", "", "is not KEY=VALUE; for example optimizer.lr=1e-3"),
        ("", "", "is not KEY=VALUE; for example optimizer.lr=1e-3"),
        ("=3", "", "'' is not the path of a key; for example optimizer.lr"),
        ("model..name=3", "", "'model..name' is not the path of a key; for example optimizer.lr"),
        (".=3", "", "'.' is not the path of a key; for example optimizer.lr"),
        ("seed=", "seed", "has no value; seed=null unsets it"),
        ("seed=  ", "seed", "has no value; seed=null unsets it"),
        ("seed.x=1", "seed.x", "cannot be set: seed is 0, not a map; "),
        ("optimizer.lr.x=1", "optimizer.lr.x", "cannot be set: optimizer.lr is 0.004, not a map; "),
        (
            "augmentations.7.p=1",
            "augmentations.7",
            "there is no '7' here: the components of augmentations are 0 (horizontal_flip), 1 (mixup_cutmix); "
            "augmentations=[...] sets the whole list",
        ),
        (
            "augmentations.mixup.p=1",
            "augmentations.mixup",
            "there is no 'mixup' here: the components of augmentations are 0 (horizontal_flip), 1 (mixup_cutmix); "
            "augmentations=[...] sets the whole list",
        ),
        (
            "extends=other",
            "extends",
            "cannot be overridden: the parent is read first; write a recipe that extends it, or name it in place of "
            "this one",
        ),
    ],
)
def test_a_wrong_override_says_why(problem, override, key, message):
    found = problem(WHOLE + "seed: 0\n", override)
    assert (".".join(map(str, found.path)), f"{found.message}; {found.cure}") == (key, message)
    assert found.place.source == "override"


@pytest.mark.parametrize("value", ["[1", "{a: b", "'x", "!!python/name:x y", "*a", "a: b: c", "\x00", "@x"])
def test_broken_yaml_in_an_override_points_at_the_value(problem, value):
    found = problem(WHOLE, f"seed={value}")
    assert (found.path, found.place.column) == (("seed",), 6)


def test_a_stray_byte_in_an_override_is_no_utf_8(problem):
    assert problem(WHOLE, "summary=caf\udce9").message == "is not UTF-8"


def test_a_path_has_an_end(problem):
    assert problem(WHOLE, ".".join("a" * (DEEPEST + 1)) + "=1").message == f"nested deeper than {DEEPEST} levels"


def test_all_wrong_overrides_are_reported_at_once(problems):
    found = problems(WHOLE, "seed", "training.epochs=3", "=1", "seed=[")
    assert [p.place.text for p in found] == ["seed", "=1", "seed=["]


def test_errors_of_overrides_and_of_the_file_come_together(problems):
    found = problems(WHOLE.replace("4e-3", "fast"), "training.epochs=0")
    assert [(p.place.source.endswith(".yaml"), p.path) for p in found] == [
        (True, ("optimizer", "lr")),
        (False, ("training", "epochs")),
    ]
