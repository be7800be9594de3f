import pytest

from convrun.keys import keys_of_section
from convrun.recipe.inheritance import SINGLE_SECTIONS
from convrun.recipe.sections import PLAIN_SECTIONS, Header
from convrun.recipe.suggestions import OTHER_WORDS
from convrun.registry import registry


@pytest.mark.parametrize(
    ("override", "cure"),
    [
        # another section's key
        ("model.lr=1", "it belongs at optimizer.lr"),
        ("training.weight_decay=1", "it belongs at optimizer.weight_decay"),
        ("batch_size=10", "it belongs at training.batch_size or evaluation.batch_size"),
        ("model.min_lr=1", "it belongs at scheduler.min_lr"),
        ("drop_path_rate=0.1", "it belongs at model.drop_path_rate"),
        ("optimizer.epochs=1", "it belongs at training.epochs"),
        ("training.seed=1", "it belongs at seed"),
        ("training.ema.decay=0.9", "it belongs at ema"),
        ("optimizer.cutmix_alpha=1", "it belongs at augmentations.mixup_cutmix.cutmix_alpha"),
        ("training.augmentations=[]", "it belongs at augmentations"),
        ("workers=3", "it belongs at data.workers"),
        ("checkpoints.best=3", "it belongs at checkpoints.keep.best"),
        # a key of another component of the kind
        ("optimizer.momentum=0.9", "optimizer/sgd would take it"),
        ("scheduler.factor=0.1", "scheduler/step would take it"),
        ("model.patch_size=2", "model/convnext, model/convnext_isotropic would take it"),
        ("augmentations.horizontal_flip.padding=4", "augmentation/random_crop would take it"),
        ("data.download=true", "data/cifar10, data/cifar100 would take it"),
        # nothing like it anywhere: what there is
        ("ema.qqqqq=1", "ema takes decay"),
        ("training.to=[jsonl]", "it belongs at logging.to"),
    ],
)
def test_a_misplaced_key_tells_where_it_belongs(problem, whole, override, cure):
    found = problem(whole + "ema: {decay: 0.9}\n", override)
    assert found.message == "unknown key"
    assert found.cure == cure


@pytest.mark.parametrize("section", ["", "model.", "optimizer.", "training.", "data.", "augmentations.0."])
@pytest.mark.parametrize("word", sorted(OTHER_WORDS))
def test_words_of_other_tools_name_ours(problems, whole, word, section):
    override = f"{section}{word}=1"
    cure = next(p.cure for p in problems(whole, override) if p.place.text == override)
    ours = OTHER_WORDS[word]
    assert ours in cure or f"did you mean {ours.rpartition('.')[2]}?" == cure


def test_words_of_other_tools_lead_to_keys_that_exist():
    header = {key.name for key in keys_of_section(Header)}
    for path in OTHER_WORDS.values():
        section, _, key = path.partition(".")
        if not key:
            assert section in {*header, *PLAIN_SECTIONS, *SINGLE_SECTIONS, "augmentations", "callbacks"}
        elif section in PLAIN_SECTIONS:
            assert key in {k.name for k in keys_of_section(PLAIN_SECTIONS[section])}
        elif key != "name":
            kind = SINGLE_SECTIONS[section]
            assert any(key in c.keys.keys for c in registry.all(kind)), path


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("model=convnext_tinny", "convnext_tiny"),
        ("model=convnextv2_tinny", "convnextv2_tiny"),
        ("optimizer.name=adamww", "adamw"),
        ("scheduler=cosin", "cosine"),
        ("data=digit", "digits"),
        ("loss=crossentropy", "cross_entropy"),
        ("augmentations=[horizontalflip]", "horizontal_flip"),
        ("logging.to=[json]", "jsonl"),
        ("callbacks=[early_stop]", "early_stopping"),
        ("launcher=loca", "local"),
    ],
)
def test_a_wrong_component_name_gets_the_nearest(problems, whole, override, name):
    messages = [p.message for p in problems(whole, override)]
    assert any("did you mean" in message and name in message for message in messages), messages


def test_a_component_name_like_none_gets_the_verb_that_lists_them(problem, whole):
    assert "convrun list components --kind optimizer shows all" in problem(whole, "optimizer.name=qqqqq").message


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.precision=float23", "float32"),
        ("training.precision=bf61", "bf16"),
        ("evaluation.report=em", "ema"),
        ("evaluation.crop_ratio=squish", "squash"),
        ("evaluation.interpolation=bicubik", "bicubic"),
        ("training.micro_batch=aut", "auto"),
        ("data.workers=atuo", "auto"),
        ("expect.weights=modell", "model"),
    ],
)
def test_a_wrong_choice_gets_the_nearest(problem, whole, override, value):
    found = problem(whole, override)
    assert f"'{value}'" in found.message, "all choices are listed"
    assert found.cure == f"did you mean {value}?"


def test_a_misspelt_name_key_without_a_name_is_found(problem, whole):
    found = problem(whole.replace("optimizer: {name:", "optimizer: {nmae:"))
    assert (found.path, found.cure) == (("optimizer", "nmae"), "did you mean name?")


def test_a_missing_name_names_the_verb_that_lists_them(problem, whole):
    found = problem(whole.replace("{name: adamw, ", "{"))
    assert (found.path, found.message) == (("optimizer", "name"), "is missing")
    assert found.cure == "name an optimizer: convrun list components --kind optimizer"
