"""What can go wrong, by whose hand: each class carries the exit code the command line ends with."""

from __future__ import annotations


class ConvrunError(Exception):
    """The world is wrong: data, disk, device, plugin. The message says what, where and the cure.

    Attributes:
        is_agreed: all processes of a run raise it together, at the same step; else one does, and the others must be
            told.
    """

    exit_code = 1
    is_agreed = False

    def report(self) -> str:
        """What the command line prints of it; a stop that was asked for is no error."""
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
    """Bytes of a checkpoint are missing, or others than were written."""


class UsageError(ConvrunError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class KeyProblem(ConvrunError):
    """A component refuses the value of one of its keys; the recipe's reader adds file, line and column.

    Raise it in a component that runs without torch (a scheduler, the facts of a data set): `key` names
    the key, None the section as a whole.
    """

    exit_code = 2

    def __init__(self, key: str | None, message: str, cure: str = "") -> None:
        super().__init__(message if not cure else f"{message}; {cure}")
        self.key, self.message, self.cure = key, message, cure


class DeviceMemoryError(ConvrunError):
    """The device has too little memory for what the recipe wants of it.

    Attributes:
        cure: an override that helps, such as `training.micro_batch=64`; None where none is known.
    """

    def __init__(self, message: str, cure: str | None = None, is_agreed: bool = False) -> None:
        super().__init__(message)
        self.cure, self.is_agreed = cure, is_agreed


class Diverged(ConvrunError):
    """The loss, a gradient or a weight is no longer a number."""

    exit_code = 3
    is_agreed = True


class Preempted(ConvrunError):
    """A signal asked the run to stop: its state is saved."""

    exit_code = 75
    is_agreed = True


class Interrupted(ConvrunError):
    """The user asked the run to stop: its state is saved."""

    exit_code = 130
    is_agreed = True
