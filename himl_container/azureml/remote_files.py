"""Files that a service names: the address of each, and where it may go on this machine.

A name comes from the service, and before that from whoever wrote the file. It becomes a path below the folder that the
caller chose, or is refused: nothing is written elsewhere, and no name is changed into another one.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from himl_container.azureml.failures import WrongValue

_NOT_IN_NAMES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, lone surrogates, separators of lines and paragraphs."""


class RemoteFile:
    """A file in blob storage, and the signed address that opens it.

    :param name: its path, with ``/`` between the parts.
    :param address: never shown: whoever has it can read the file.
    :param renew: gives a new address when the signature has expired.
    """

    def __init__(self, name: str, address: str, renew: Callable[[], str] | None = None) -> None:
        self.name = name
        self._address, self._renew = address, renew
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The address that was last known to work."""
        return self._address

    def renewed(self, old: str) -> bool:
        """Get another address than ``old``; False where there is none."""
        with self._lock:
            if self._address == old and self._renew is not None:
                self._address = self._renew()
            return self._address != old

    def __repr__(self) -> str:
        return f"RemoteFile({self.name!r})"


def checked_name(name: str) -> str:
    """Return the name of a file if it is a path below a folder.

    :raises WrongValue: it is absolute, leads upwards, has an empty part, a backslash or a control character.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\\" in name or _has_control(name) or parts[0].endswith(":"):
        raise WrongValue(
            f"The name of a remote file is not a path below a folder: {name!r}",
            hint="Nothing was transferred for it. Give it another name where it was made.",
        )
    return name


def local_path(folder: Path, name: str) -> Path:
    """Return where a remote file goes below a folder.

    :raises WrongValue: as :func:`checked_name`.
    """
    return folder.joinpath(*checked_name(name).split("/"))


def check_tree(names: Iterable[str]) -> None:
    """Check that no name is a file and a folder at once: blob storage allows it, no file system does.

    :raises WrongValue: one is; or as :func:`checked_name`.
    """
    every = {checked_name(name) for name in names}
    for name in sorted(every):
        for folder in folders_of(name):
            if folder in every:
                raise WrongValue(
                    f"{folder!r} is a file and, because of {name!r}, a folder too.",
                    hint="Both cannot be on one disk; download them one after the other with a longer prefix.",
                )


def folders_of(name: str) -> Sequence[str]:
    """Return the folders that a name is in, the outermost first."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _has_control(name: str) -> bool:
    return any(unicodedata.category(character) in _NOT_IN_NAMES for character in name)
