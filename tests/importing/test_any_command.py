"""Whatever the flags say, the answer is a recipe that loads or a message, never a traceback."""

import hypothesis
from hypothesis import strategies as st

from convrun.errors import ConvrunError
from convrun.importing import import_command
from convrun.importing.launch import read_command
from convrun.importing.released_flags import MAIN_FLAGS, SUBMITIT_FLAGS
from convrun.importing.timm_flags import TRAIN_FLAGS

SCRIPTS = {"main.py": MAIN_FLAGS, "run_with_submitit.py": (*MAIN_FLAGS, *SUBMITIT_FLAGS), "train.py": TRAIN_FLAGS}
NUMBERS = ["0", "1", "-1", "3", "32", "384"]
TYPED = {int: NUMBERS, float: [*NUMBERS, "0.5", "1e9", "nan", "inf"]}
VALUES = ["0", "1", "-1", "0.5", "3", "384", "1e9", "nan", "inf", "", "true", "false", "a", "/a/b", "../x", "a=1", "_",
          "convnext_tiny", "convnext_base.fb_in22k", "adamw", "sgd", "lamb", "step", "rand-m9", "image_folder", "a\nb",
          "${env:X}", "${", "#", "timm/x", "[", "\u2028", "é"]  # fmt: skip


def flags_of(script):
    def words(flag):
        count = {None: 1, "+": 2, "*": 2, "?": 1}.get(flag.nargs, flag.nargs) if flag.type else 0
        values = st.sampled_from([*TYPED.get(flag.type, VALUES), *(flag.choices or ()), str(flag.default)])
        return st.lists(values, min_size=count, max_size=count).map(lambda v: [f"--{flag.name}", *v])

    return st.lists(st.sampled_from(SCRIPTS[script]).flatmap(words), max_size=4).map(
        lambda found: [w for one in found for w in one]
    )


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.sampled_from(list(SCRIPTS)).flatmap(lambda s: st.tuples(st.just(s), flags_of(s))))
def test_any_command_ends_in_a_recipe_or_a_message(command):
    script, words = command
    try:
        imported = import_command(read_command(["python", script, *words]))
    except ConvrunError as error:
        assert error.exit_code == 2
        assert str(error)
    else:
        assert imported.recipe.resolved()
