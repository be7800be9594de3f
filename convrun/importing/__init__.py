"""Other tools' commands -> recipes: the released ConvNeXt main.py, and timm's train.py and its args.yaml."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from convrun.errors import RunFolderError, UsageError
from convrun.importing.flags import Given, read_arguments
from convrun.importing.launch import Command, read_command, training_command
from convrun.importing.released import translate_released
from convrun.importing.released_flags import MAIN_FLAGS, SUBMITIT_FLAGS
from convrun.importing.shell import simple_commands
from convrun.importing.timm_flags import TRAIN_FLAGS
from convrun.importing.timm_train import read_args_file, translate_timm, with_config
from convrun.importing.translation import Head, Translation
from convrun.recipe.recipe import Recipe

__all__ = ["Imported", "import_args_file", "import_arguments", "import_command", "import_shell_text"]


@dataclasses.dataclass(frozen=True)
class Imported:
    """A recipe made from a command: its text, comments and all, and the text read back."""

    text: str
    recipe: Recipe

    def write(self, path: Path) -> None:
        """Writes the text to a new file.

        Raises:
            UsageError: the file exists.
            RunFolderError: it cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(self.text)
        except FileExistsError:
            raise UsageError(f"{path} exists already; name another file") from None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be written: {error.strerror}; name another file") from None


def import_arguments(
    words: Sequence[str], source: str | None = None, *, processes: int | None = None, head: Head | None = None
) -> Imported:
    """What `convrun import` does with its own arguments.

    Args:
        words: a command, word by word or as one text, or the path of a timm args.yaml.
        source: a file that holds the command; `-` is standard input.
        processes: how many processes train, where the command does not say.
        head: whether the classifier of the weights a run starts from is loaded, where the command does not say.

    Raises:
        UsageError: names every flag that cannot be imported.
    """
    if source is not None and words:
        raise UsageError(f"the command is given twice: after -- and in {source}")
    if source is not None:
        return import_shell_text(_read(source), processes=processes, head=head)
    if not words:
        raise UsageError("there is no command to import: convrun import -- python main.py ..., or --from FILE")
    if len(words) == 1 and words[0].endswith((".yaml", ".yml")):
        return import_args_file(Path(words[0]), processes=processes, head=head)
    if len(words) == 1 and words[0].endswith(".sh") and Path(words[0]).is_file():
        raise UsageError(f"{words[0]} is a script: convrun import --from {words[0]}")
    if len(words) == 1 and any(c.isspace() for c in words[0]):
        return import_shell_text(words[0], processes=processes, head=head)
    return import_command(read_command(words), processes=processes, head=head)


def import_shell_text(text: str, *, processes: int | None = None, head: Head | None = None) -> Imported:
    """The one training command in a shell text."""
    return import_command(training_command(simple_commands(text)), processes=processes, head=head)


def import_command(command: Command, *, processes: int | None = None, head: Head | None = None) -> Imported:
    """A command whose launcher has been read."""
    if command.script == "train.py":
        given = with_config(read_arguments("train.py", TRAIN_FLAGS, command.arguments, positional="data_dir"))
    else:
        flags = (*MAIN_FLAGS, *(SUBMITIT_FLAGS if command.script == "run_with_submitit.py" else ()))
        given = read_arguments(command.script, flags, command.arguments)
    command = _with_processes(command, given, processes)
    t = Translation(given, command.processes, command.how, head)
    if command.script == "train.py":
        translate_timm(t)
    else:
        translate_released(t, command)
    return _finished(t, ["Made by convrun import from the command", shlex.join(command.words)])


def import_args_file(path: Path, *, processes: int | None = None, head: Head | None = None) -> Imported:
    """The args.yaml that timm's train.py leaves in its output folder."""
    given, unknown = read_args_file(path)
    t = Translation(given, processes, "--processes" if processes else "args.yaml does not say how many processes", head)
    t.draft.no_effect.extend(unknown)
    translate_timm(t)
    return _finished(t, [f"Made by convrun import from {path}, written by timm's train.py"])


def _with_processes(command: Command, given: Given, processes: int | None) -> Command:
    """The command, with the number of processes from its flags or from --processes."""
    if command.script == "run_with_submitit.py":
        nodes, gpus = given["nodes"], given["ngpus"]
        command = dataclasses.replace(command, processes=nodes * gpus, how=f"{nodes} × {gpus}")
    if command.processes is not None and command.processes < 1:
        raise UsageError(f"the command starts no process ({command.how})")
    if processes is None or processes == command.processes:
        return command
    if command.processes not in (None, 1):
        raise UsageError(f"--processes {processes}, but the command starts {command.processes} ({command.how})")
    return dataclasses.replace(command, processes=processes, how="--processes")


def _finished(t: Translation, head: Sequence[str]) -> Imported:
    t.settle()
    text = t.draft.render(head)
    return Imported(text, t.draft.check(text))


def _read(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{source} is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from None
