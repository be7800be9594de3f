"""The classes of errors. Each carries the exit code that the command line ends with."""

from __future__ import annotations


class ConvrunError(Exception):
    """Something outside convrun is wrong: data, disk, device, plugin. The message says what, where and the cure.

    Attributes:
        is_agreed: whether all processes of a run raise it at the same step; if not, the one that does must tell the
            others.
    """

    exit_code = 1
    is_agreed = False

    def report(self) -> str:
        """What the command line prints; a stop that was requested is not called an error."""
        return str(self) if self.exit_code in (75, 130) else f"error: {self}"


class PluginError(ConvrunError):
    """A plugin cannot be imported, or breaks the contract of its kind."""


class DataError(ConvrunError):
    """A data set is missing, broken, or not what the recipe says."""


class ModelError(ConvrunError):
    """A model cannot be built, or weights do not fit it."""


class RunFolderError(ConvrunError):
    """A run folder cannot be made, is in use, or holds something else."""


class CheckpointError(ConvrunError):
    """A checkpoint cannot be read or belongs to another run."""


class DamagedCheckpoint(CheckpointError):
    """Bytes of a checkpoint are missing or differ from those that were written."""


class UsageError(ConvrunError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class KeyProblem(ConvrunError):
    """A component refuses the value of one of its keys; the recipe's reader adds file, line and column.

    Raise it in a component that runs without torch (a scheduler, the facts of a data set). `key` is the key's name;
    None stands for the whole section.
    """

    exit_code = 2

    def __init__(self, key: str | None, message: str, cure: str = "") -> None:
        super().__init__(message if not cure else f"{message}; {cure}")
        self.key, self.message, self.cure = key, message, cure


class DeviceMemoryError(ConvrunError):
    """The device has too little memory for the recipe.

    Attributes:
        cure: an override that helps, such as `training.micro_batch=64`; None if none is known.
    """

    def __init__(self, message: str, cure: str | None = None, is_agreed: bool = False) -> None:
        super().__init__(message)
        self.cure, self.is_agreed = cure, is_agreed


class Diverged(ConvrunError):
    """The loss, a gradient or a weight is non-finite."""

    exit_code = 3
    is_agreed = True


class Preempted(ConvrunError):
    """A signal asked the run to stop, and its state is saved."""

    exit_code = 75
    is_agreed = True


class Interrupted(ConvrunError):
    """The user asked the run to stop, and its state is saved."""

    exit_code = 130
    is_agreed = True
