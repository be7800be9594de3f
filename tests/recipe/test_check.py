import pytest


def test_every_error_of_a_file_is_told_at_once(problems):
    found = problems(
        """\
name: [x]
sead: 3
model: {name: convnext_tinny}
data: {name: image_folder}
augmentations: [rand_augmnt, {name: random_crop, paddin: 4}, 3]
optimizer: {name: adamw, lr: fast, beta: [0.9]}
scheduler:
training: {epochs: 0, batch_size: 1.5, precision: fp8}
evaluation: daily
logging: {every_steps: 0, to: [jsonl, {name: csv, x: 1}]}
callbacks: early_stopping
nonsense: 1
"""
    )
    assert [".".join(map(str, p.path)) for p in found] == [
        "name", "sead", "model.name", "data.root", "augmentations.0.name", "augmentations.1.paddin", "augmentations.2",
        "optimizer.lr", "optimizer.beta", "scheduler", "training.epochs", "training.batch_size", "training.precision",
        "evaluation", "logging.every_steps", "logging.to.1.x", "callbacks", "nonsense",
    ]  # fmt: skip
    assert all(p.cure for p in found if p.message == "unknown key")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=x", "must be an integer, got 'x'"),
        ("seed=1.0", "must be an integer, got 1.0"),
        ("seed=true", "must be an integer, got true"),
        ("seed=-1", "must be greater than or equal to 0, got -1"),
        ("seed=null", "must be an integer, got null"),
        ("seed='1'", "must be an integer, got '1'"),
        ("seed=.inf", "must be an integer, got inf"),
        ("seed=99999999999999999999999", "must be less than 9223372036854775808, got 99999999999999999999999"),
        ("summary=3", "must be text, got 3"),
        ("optimizer.lr=.inf", "must be a finite number, got inf"),
        ("optimizer.lr=.nan", "must be a finite number, got nan"),
        ("optimizer.lr=1e999", "must be a finite number, got inf"),
        ("optimizer.lr=0", "must be greater than 0, got 0"),
        ("optimizer.lr=1_000", "must be a number, got '1_000'"),
        ("training.compile=on", "must be true or false, got 'on'"),
        ("training.batch_size=2000000", "must be less than or equal to 1048576, got 2000000"),
        ("optimizer.betas=0.9", "must be a list, got 0.9"),
        ("optimizer.betas=[0.9]", "must be [float ≥ 0 and < 1, float ≥ 0 and < 1], got [0.9]"),
        ("optimizer.betas=[]", "must be [float ≥ 0 and < 1, float ≥ 0 and < 1], got []"),
        ("optimizer.betas=[0.1, 0.2, 0.3]", "must be [float ≥ 0 and < 1, float ≥ 0 and < 1], got [0.1, 0.2, 0.3]"),
        ("data.mean=[0.5]", "must be a list of 3 float, got [0.5]"),
        ("data.std.1=x", "must be a number, got 'x'"),
        ("name=''", "must be at least 1 character long or null, got ''"),
        ("training.micro_batch=some", "must be an integer or 'auto', got 'some'"),
        ("plugins=a.py", "must be a list, got 'a.py'"),
        ("plugins=[1]", "must be text, got 1"),
        ("ema=0.9", "must be a map of keys, got 0.9"),
        ("training=null", "must be a map of keys, got null"),
        ("model=3", "must be a name or a map with a name, got 3"),
        ("model=null", "is empty"),
        ("model.name=3", "must be text, got 3"),
        ("augmentations=horizontal_flip", "must be a list of augmentations, got 'horizontal_flip'"),
        ("augmentations.0=null", "must be a name or a map with a name, got null"),
        ("checkpoints.keep=3", "must be a map, got 3"),
        ("checkpoints.keep.last=0", "must be greater than 0, got 0"),
    ],
)
def test_a_wrong_value_says_what_it_must_be_and_what_it_is(problem, whole, override, message):
    text = whole.replace("val_images: 20", "val_images: 20, std: [1, 1, 1]")
    assert problem(text, override).message == message


def test_a_long_value_is_cut(problem, whole):
    assert len(problem(whole, f"seed={'x' * 5000}").message) < 100


def test_a_missing_key_tells_its_meaning(problem, whole):
    found = problem(whole.replace(", batch_size: 10", ""))
    assert (found.path, found.message) == (("training", "batch_size"), "is missing")
    assert found.cure == "images of one optimizer step, over all processes and accumulation"


def test_an_integer_is_a_float_and_nothing_else_is_coerced(load, whole):
    assert isinstance(load(whole, "optimizer.lr=1").optimizer.values["lr"], float)


def test_sections_that_are_left_out_take_their_defaults(load, whole):
    recipe = load(whole)
    assert (recipe.evaluation.every_epochs, recipe.checkpoints.every_epochs) == (1, 1)
    assert (recipe.ema, recipe.init, recipe.expect) == (None, None, None)
    assert (recipe.loss.name, recipe.launcher.name) == ("cross_entropy", "local")
    assert [c.name for c in recipe.loggers] == ["console", "jsonl", "tensorboard"]


def test_a_default_component_keeps_its_name_when_only_a_key_is_set(load, whole):
    recipe = load(whole + "loss: {label_smoothing: 0.2}\n")
    assert (recipe.loss.name, recipe.loss.values["label_smoothing"]) == ("cross_entropy", 0.2)


def test_a_recipe_without_a_name_is_called_after_its_file(load, whole):
    assert load(whole.replace("name: small\n", ""), name="from_the_file.yaml").name == "from_the_file"


def test_steps_alone_are_no_doubt_about_epochs(load, whole):
    assert load(whole, "evaluation.every_steps=3").evaluation.every_epochs is None
