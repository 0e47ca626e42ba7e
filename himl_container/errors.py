"""One exception family for everything that can go wrong for a user.

Each error says what is wrong, where, and what to do next, and carries the exit code of the command
line (listed in ``docs/errors.md``). The codes stay clear of 1 and 2 (Python and click) and of the small
numbers that scripts like to return, because ``run`` passes on the script's own exit code.
"""

from __future__ import annotations


class HimlError(Exception):
    """Base of all errors that are shown to a user without a traceback.

    :param what: one sentence that names what is wrong.
    :param where: the place: ``file:line``, a package, an image reference. Empty where there is none.
    :param hint: the next step for the reader. Empty where there is none.
    """

    exit_code = 70

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class InputError(HimlError):
    """A file, setting or argument that the user wrote is missing, malformed or contradictory."""

    exit_code = 65


class UnsolvableError(HimlError):
    """The solver proved that no set of packages satisfies the environment."""

    exit_code = 66


class StaleLockError(HimlError):
    """The lock is missing, or was made from other inputs than the present ones."""

    exit_code = 67


class ArtifactError(HimlError):
    """A package or wheel cannot be fetched, or is not the one that the lock names."""

    exit_code = 68


class EngineError(HimlError):
    """The Docker engine does not answer, went away, or refused a request."""

    exit_code = 69


class BuildError(HimlError):
    """A layer, the system part or a wheel could not be built."""

    exit_code = 71


class SmokeTestError(HimlError):
    """The image was built but failed its tests, and did not get its tag."""

    exit_code = 72


class LaunchError(HimlError):
    """A run could not be started (a run that was started ends with its script's exit code)."""

    exit_code = 73


class StorageError(HimlError):
    """The disk is full, or a folder cannot be written."""

    exit_code = 74


class RegistryError(HimlError):
    """A container registry does not answer or refused a request."""

    exit_code = 75


class VerifyError(HimlError):
    """What should be one and the same image is not: run, registry, daemon and lock part somewhere."""

    exit_code = 76


class AzureMLError(HimlError):
    """AzureML does not answer or refused a request, or nobody is logged in."""

    exit_code = 77


class RunFailedError(HimlError):
    """A run in AzureML for which we waited failed, was cancelled, or ran out of time."""

    exit_code = 78
