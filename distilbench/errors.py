"""The one error that people are meant to read: it says what was given, what is allowed, what to do."""

from __future__ import annotations


class DistilbenchError(Exception):
    """A problem that the user can solve; shown as a message, never as a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback (its hook for custom exceptions)."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(DistilbenchError):
    """A parameter is unknown, ill-typed or out of range."""


class DataError(DistilbenchError):
    """Input text is missing, malformed, or not the text it was before."""


class ModelError(DistilbenchError):
    """A model cannot be found, loaded or trusted."""


class HubError(DistilbenchError):
    """The model hub cannot be reached, refuses, or sent something damaged."""


class DeviceError(DistilbenchError):
    """The device asked for is not on this machine."""


class RunError(DistilbenchError):
    """A run folder is missing, in use, damaged, or of another design."""


class ImplausibleError(RunError):
    """A reading cannot be true, such as a counter that went back or a number that is not finite; the next one may be.

    What was to be measured with it is invalid: it has no number, and this is the reason.
    """


class SlurmError(DistilbenchError):
    """A program of SLURM is missing, fails, does not answer, or its answer is not understood: nothing is known then."""


class Stopped(DistilbenchError):
    """Asked to stop before all was measured, as a batch system does before a job's time is over; it can be resumed."""


class StorageError(DistilbenchError):
    """A file cannot be written: no space, no permission, no such place."""


def first_line(error: BaseException) -> str:
    """What it says, in one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def how_it_ended(error: BaseException) -> tuple[str, str]:
    """The state of a run or of an attempt that this ended, and the message."""
    if isinstance(error, Stopped):
        return "preempted", str(error)
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "interrupted"
    return "failed", first_line(error)
