"""Every command of the released TRAINING.md, word for word, imported, is the recipe that ships."""

import re
from pathlib import Path

import pytest

from convrun.importing import import_shell_text
from convrun.plan import Machine, make_plan
from convrun.recipe import load_recipe

# Blocks of `=== SHIPPED RECIPE [head=...]` and the command. Whether a checkpoint's head fits stands in no command: the
# file is /path/to/checkpoint.pth in each, so what a user would tell convrun import is told here.
BLOCKS = (Path(__file__).parent / "training_md_commands.txt").read_text().split("=== ")[1:]
COMMANDS = [(*block.partition("\n")[0].split(), block.partition("\n")[2]) for block in BLOCKS]
COMMANDS = [(c[0], c[1].removeprefix("head=") if len(c) == 3 else None, c[-1]) for c in COMMANDS]
IDS = [f"{name}-{'nodes' if 'submitit' in command else 'one_machine'}" for name, _, command in COMMANDS]
# What a recipe says beside the training: its description, and where things are on somebody's disk.
DESCRIPTION = ("name", "summary", "notes", "expect", "launcher")


def numbers(recipe):
    resolved = recipe.resolved()
    for key in DESCRIPTION:
        resolved.pop(key, None)
    resolved["data"].pop("root")
    if "init" in resolved:
        resolved["init"].pop("from")
    return resolved


def test_all_36_commands_are_here_and_name_18_recipes():
    assert len(COMMANDS) == 36
    assert len({name for name, _, _ in COMMANDS}) == 18
    assert all(sum(name == other for other, _, _ in COMMANDS) == 2 for name, _, _ in COMMANDS)


@pytest.mark.parametrize(("name", "head", "command"), COMMANDS, ids=IDS)
def test_an_imported_command_equals_the_shipped_recipe(name, head, command):
    assert numbers(import_shell_text(command, head=head).recipe) == numbers(load_recipe(name))


@pytest.mark.parametrize(("name", "head", "command"), COMMANDS, ids=IDS)
def test_an_imported_command_plans_on_as_many_processes_as_it_started(name, head, command):
    imported = import_shell_text(command, head=head)
    each = re.search(r"--(?:ngpus |nproc_per_node=)(\d+)", command)[1]
    nodes = re.search(r"--nodes (\d+)", command)
    accumulation = re.search(r"--update_freq (\d+)", command)[1]
    plan = make_plan(imported.recipe, Machine(processes=int(each) * int(nodes[1] if nodes else 1)))
    assert plan.accumulation == int(accumulation)


@pytest.mark.parametrize(("name", "head", "command"), COMMANDS, ids=IDS)
def test_the_published_checkpoint_names_say_whether_the_head_fits(name, head, command):
    """The README's file names in place of /path/to/checkpoint.pth: nobody has to tell of the head."""
    size = re.search(r"--model convnext_(\S+)", command)[1]
    published = f"convnext_{size}_22k_224.pth" if head else f"convnext_{size}_1k_224_ema.pth"
    command = command.replace("/path/to/checkpoint.pth", f"https://dl.fbaipublicfiles.com/convnext/{published}")
    assert numbers(import_shell_text(command).recipe) == numbers(load_recipe(name))
