import pytest

from convrun.errors import UsageError
from convrun.importing import import_arguments
from convrun.importing.flags import read_arguments
from convrun.importing.released_flags import MAIN_FLAGS
from convrun.importing.timm_flags import TRAIN_FLAGS


def main(*words):
    return read_arguments("main.py", MAIN_FLAGS, words)


def test_values_are_of_their_flags_types_and_defaults_stand_in():
    given = main("--lr", "1e-3", "--epochs=5", "--model_ema", "TRUE", "--opt_betas", "0.9", "0.95")
    assert [given[d] for d in ("lr", "epochs", "model_ema", "opt_betas")] == [1e-3, 5, True, [0.9, 0.95]]
    assert given["min_lr"] == 1e-6
    assert given.has("lr")
    assert not given.has("min_lr")


def test_abbreviations_are_taken_as_argparse_takes_them():
    assert main("--drop", "0.1")["drop_path"] == 0.1
    assert main("--upd=4")["update_freq"] == 4
    assert main("--model", "x")["model"] == "x", "a whole name is no abbreviation of a longer one"


def test_the_last_of_two_values_counts():
    assert main("--lr", "1", "--lr", "2")["lr"] == 2


@pytest.mark.parametrize(("words", "message"), [
    (["--learning_rate", "1"], "main.py has no flag --learning_rate"),
    (["--drop_pth", "1"], "main.py has no flag --drop_pth; did you mean --drop_path?"),
    (["--drop-path", "1"], "main.py has no flag --drop-path; did you mean --drop_path?"),
    (["--batch_size=1", "--updatefreq=1", "--epoch_s=2"], "did you mean --update_freq?\nmain.py has no flag --epoch_s"),
    (["--model_e", "true"], "ambiguous option: --model_e could match --model_ema"),
    (["--lr"], "argument --lr: expected one argument"),
    (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
    (["--epochs", "1.5"], "argument --epochs: invalid int value: '1.5'"),
    (["--model_ema", "maybe"], "argument --model_ema: true or false expected, got 'maybe'"),
    (["--data_set", "COCO"], "argument --data_set: invalid choice: 'COCO'"),
    (["--lr", "1", "2"], "'2' does not belong to a flag"),
    (["stray"], "'stray' does not belong to a flag"),
])  # fmt: skip
def test_what_argparse_refuses_is_one_message(words, message):
    with pytest.raises(UsageError) as error:
        main(*words)
    assert message in str(error.value)


@pytest.mark.parametrize("flags", [MAIN_FLAGS, TRAIN_FLAGS], ids=["main.py", "train.py"])
def test_a_flag_is_listed_once_and_one_that_is_left_out_has_a_reason(flags):
    assert len({flag.dest for flag in flags}) == len(flags)
    assert [flag.name for flag in flags if (flag.fate == "translated") == bool(flag.why)] == []


@pytest.mark.parametrize("script", ["main.py", "train.py"])
def test_every_translated_flag_is_looked_at(script, monkeypatch):
    """Over a few commands that switch everything on, no flag is one that the translation never asks for."""
    asked = set()
    monkeypatch.setattr("convrun.importing._finished", lambda t, head: asked.update(t.given.asked))
    flags = MAIN_FLAGS if script == "main.py" else TRAIN_FLAGS
    commands = {
        "main.py": ["", "--finetune a --use_amp 1 --data_set image_folder --model_ema 1", "--opt sgd --aa ''",
                    "--mixup 0 --cutmix 0 --reprob 0"],
        "train.py": ["", "--bce-loss --model-ema --pretrained --clip-grad 1 --aa rand --reprob 1 --mixup 1 --cutmix 1",
                     "--dataset torch/cifar10 --opt adamw --amp", "--sched step --opt lion --reprob 1"],
    }[script]  # fmt: skip
    for words in commands:
        import_arguments([f"python {script} {words}"])
    assert [flag.dest for flag in flags if flag.fate == "translated" and flag.dest not in asked] == []
