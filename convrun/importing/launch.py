"""A training command's words -> the script it runs, the script's arguments, and how many processes train."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from convrun.errors import UsageError
from convrun.importing.flags import Flag, Given, read_arguments
from convrun.importing.shell import assignment
from convrun.text.wording import nearest

SCRIPTS = ("main.py", "run_with_submitit.py", "train.py")
_KNOWN = (
    "convrun import knows main.py and run_with_submitit.py of the released ConvNeXt code, and train.py and "
    "distributed_train.sh of timm"
)
_WRAPPERS = ("env", "exec", "nohup", "time", "stdbuf")
_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_LAUNCHERS = ("torch.distributed.launch", "torch.distributed.run")

# What torch's launchers take (torch.distributed.run), dashes and underscores alike; only the first two matter here.
_TORCHRUN_VALUES = (
    "nnodes nproc-per-node node-rank master-addr master-port rdzv-backend rdzv-endpoint rdzv-id rdzv-conf max-restarts "
    "monitor-interval start-method role log-dir redirects tee local-ranks-filter local-addr logs-specs "
    "event-log-handler numa-binding signals-to-handle"
).split()
_TORCHRUN_SWITCHES = "standalone use-env module no-python run-path virtual-local-rank".split()
_SHORT = {"redirects": "-r", "tee": "-t", "module": "-m"}
_SRUN_VALUES = {"ntasks": "-n", "nodes": "-N", "ntasks-per-node": "", "gpus-per-node": "", "gres": "", "gpus": "-G",
                "partition": "-p", "job-name": "-J", "time": "-t", "cpus-per-task": "-c", "mem": "", "account": "-A",
                "qos": "-q", "constraint": "-C", "output": "-o", "error": "-e", "exclude": "-x"}  # fmt: skip
_SRUN_SWITCHES = {"exclusive": "", "unbuffered": "-u", "label": "-l"}


@dataclasses.dataclass(frozen=True)
class Command:
    """A training command.

    Attributes:
        words: the whole command.
        script: `main.py`, `run_with_submitit.py` or `train.py`.
        arguments: what the script is given.
        processes: training processes over all nodes; None: the command does not say.
        how: where that number comes from, for a comment.
    """

    words: tuple[str, ...]
    script: str
    arguments: tuple[str, ...]
    processes: int | None
    how: str


def training_command(commands: Sequence[Sequence[str]]) -> Command:
    """The one training command among the commands of a text; others (`cd`, `module load`) are skipped.

    Raises:
        UsageError: no command trains (says why the last one does not), or several do.
    """
    found, problems = [], []
    for words in commands:
        try:
            found.append(read_command(words))
        except UsageError as error:
            problems.append(error)
    if len(found) > 1:
        raise UsageError(f"{len(found)} training commands; import one at a time: {' '.join(found[1].words[:4])} ...")
    if not found:
        raise problems[-1] if problems else UsageError("there is no command to import")
    return found[0]


def read_command(words: Sequence[str]) -> Command:
    """A command of one of the scripts that can be imported.

    Raises:
        UsageError: another program, an unknown script, or a launcher's option that is wrong.
    """
    environment, rest = _without_wrappers(words)
    if not rest:
        raise UsageError("the command is empty")
    program = _file_name(rest[0])
    if program == "srun":
        processes, rest = _srun(rest[1:])
        command = read_command(rest)
        if processes is not None and command.processes == 1:
            command = dataclasses.replace(command, processes=processes, how=f"srun starts {processes}")
        return dataclasses.replace(command, words=tuple(words))
    if program in ("bash", "sh") and len(rest) > 1:
        rest, program = rest[1:], _file_name(rest[1])
    if program == "distributed_train.sh":
        return _distributed_train(words, rest)
    if program == "torchrun":
        return _torchrun(words, rest[1:])
    if _PYTHON.fullmatch(program):
        return _python(words, rest[1:], environment)
    if program.endswith(".py"):
        return _script(words, rest, environment)
    raise UsageError(f"{rest[0]!r} is not a training command: that starts with python or torchrun. {_KNOWN}")


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _without_wrappers(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables set in front of a command, and the command itself."""
    environment: dict[str, str] = {}
    rest = list(words)
    while rest:
        pair = assignment(rest[0])
        if pair:
            environment[pair[0]] = pair[1]
        elif _file_name(rest[0]) not in _WRAPPERS:
            break
        rest.pop(0)
    return environment, rest


def _python(words: Sequence[str], rest: list[str], environment: Mapping[str, str]) -> Command:
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        taken = 2 if rest[0] in ("-W", "-X") else 1
        if rest[0] == "-c":
            raise UsageError("python -c runs no script; " + _KNOWN)
        rest = rest[taken:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        if rest[1] in _LAUNCHERS:
            return _torchrun(words, rest[2:])
        rest = [rest[1].rpartition(".")[2] + ".py", *rest[2:]]
    if not rest:
        raise UsageError("python is given no script; " + _KNOWN)
    return _script(words, rest, environment)


def _script(words: Sequence[str], rest: Sequence[str], environment: Mapping[str, str]) -> Command:
    script = _known(rest[0])
    if script == "run_with_submitit.py":
        return Command(tuple(words), script, tuple(rest[1:]), None, "")
    size = environment.get("WORLD_SIZE", "")
    if "RANK" in environment and size.isdecimal():
        return Command(tuple(words), script, tuple(rest[1:]), int(size), f"WORLD_SIZE={size}")
    how = "python starts one process, whatever CUDA_VISIBLE_DEVICES lists"
    if "CUDA_VISIBLE_DEVICES" not in environment:
        how = "the command starts one process"
    return Command(tuple(words), script, tuple(rest[1:]), 1, how)


def _known(path: str) -> str:
    name = _file_name(path)
    if name not in SCRIPTS:
        guess = nearest(name, SCRIPTS)
        raise UsageError(f"the script {name!r} is unknown{f'; did you mean {guess}?' if guess else ''}. {_KNOWN}")
    return name


def _torchrun(words: Sequence[str], rest: Sequence[str]) -> Command:
    flags = [Flag(name, str, aliases=_spellings(name)) for name in _TORCHRUN_VALUES]
    flags += [Flag(name, None, aliases=_spellings(name)) for name in _TORCHRUN_SWITCHES]
    launcher, arguments = _split("the launcher", flags, rest)
    module = launcher.has("module")
    script = _known(f"{arguments[0]}.py" if module else arguments[0])
    nodes, each = launcher["nnodes"] or "1", launcher["nproc_per_node"] or "1"
    known = nodes.isdecimal() and each.isdecimal()
    processes = int(nodes) * int(each) if known else None
    how = f"the launcher starts {each if nodes == '1' else f'{nodes} × {each}'}"
    if not known:
        how = f"the launcher's {each} processes on {nodes} nodes are not numbers"
    return Command(tuple(words), script, tuple(arguments[1:]), processes, how)


def _spellings(name: str) -> tuple[str, ...]:
    return (*([f"--{name.replace('-', '_')}"] if "-" in name else []), *([_SHORT[name]] if name in _SHORT else []))


def _split(program: str, flags: Sequence[Flag], words: Sequence[str]) -> tuple[Given, list[str]]:
    """The options before the script, and what starts with the script."""
    switches = {s for flag in flags if flag.type is None for s in (f"--{flag.name}", *flag.aliases)}
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 1 if words[at] in switches or "=" in words[at] else 2
    if at >= len(words):
        raise UsageError(f"{program} is given no script; {_KNOWN}")
    return read_arguments(program, flags, words[:at]), list(words[at:])


def _distributed_train(words: Sequence[str], rest: Sequence[str]) -> Command:
    if len(rest) < 2 or not rest[1].isdecimal():
        raise UsageError("distributed_train.sh takes the number of processes first: ./distributed_train.sh 4 ...")
    return Command(tuple(words), "train.py", tuple(rest[2:]), int(rest[1]), f"distributed_train.sh starts {rest[1]}")


def _srun(rest: Sequence[str]) -> tuple[int | None, list[str]]:
    flags = [Flag(name, str, aliases=(short,) if short else ()) for name, short in _SRUN_VALUES.items()]
    flags += [Flag(name, None, aliases=(short,) if short else ()) for name, short in _SRUN_SWITCHES.items()]
    options, command = _split("srun", flags, rest)
    if options.has("ntasks"):
        count = options["ntasks"]
    elif options.has("nodes") and options.has("ntasks_per_node"):
        nodes, each = options["nodes"], options["ntasks_per_node"]
        count = str(int(nodes) * int(each)) if nodes.isdecimal() and each.isdecimal() else ""
    else:
        count = ""
    return (int(count) if count.isdecimal() else None), command
