"""The data of a verification: what was found where, and where it parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from himl_container.errors import VerifyError

PartName = Literal["run", "registry", "daemon", "lock"]
PARTS: tuple[PartName, ...] = ("run", "registry", "daemon", "lock")

_SHOWN = 20


@dataclass(frozen=True)
class RunImage:
    """The image that a run used, as the run's own record has it.

    :param run: the run's id.
    :param tag: the name under which it was asked for.
    :param id: the daemon's id of it (``sha256:...``); empty where no daemon is known to have run it.
    :param digest: ``repository@sha256:...``; empty where it was in no registry.
    :param fingerprint: of the inputs that it was made from; empty where that was not recorded.
    :param lock: sha256 (hex) of the lock file that chose it; empty where none did.
    """

    run: str
    tag: str
    id: str = ""
    digest: str = ""
    fingerprint: str = ""
    lock: str = ""


class Runs(Protocol):
    """Where runs are recorded: folders of ``run --local``, or a workspace."""

    def image_of(self, run: str) -> RunImage | None:
        """Return the image of a run; None where no run of this name is recorded here."""


@dataclass(frozen=True)
class Part:
    """One of what is compared.

    :param state: ``found``, ``missing`` (it was asked and does not have the image) or ``not compared``.
    :param name: what it calls the image.
    :param identity: the digest by which it is compared: the manifest's, the image's id, the lock's.
    :param why: for a state other than ``found``.
    """

    part: PartName
    state: Literal["found", "missing", "not compared"]
    name: str = ""
    identity: str = ""
    why: str = ""


@dataclass(frozen=True)
class Parting:
    """One thing in which two parts differ.

    :param what: ``image`` (they are not the same, and nobody knows the layers), ``layers`` (their number), ``layer``,
        ``setting`` (a variable, a label, the command, by name), ``configuration`` (anything else in it, such as a
        time), ``fingerprint``, ``tag``, ``lock``, ``packages``, ``package``, ``blob`` (its bytes are not those of its
        digest), ``content`` (what a blob unpacks to is not the layer), ``missing``.
    :param name: of the layer or package.
    :param left, right: what each has; empty for nothing.
    """

    parts: tuple[PartName, PartName]
    what: str
    name: str
    left: str
    right: str

    def __str__(self) -> str:
        between = self.parts[0] if self.parts[0] == self.parts[1] else f"{self.parts[0]} and {self.parts[1]}"
        return f"{between}: {f'{self.what} {self.name}'.strip()}: {self.left or 'none'} / {self.right or 'none'}"


@dataclass(frozen=True)
class Verification:
    """What came out.

    :param compared: pairs of parts that were compared with each other.
    :param layers: number of layers whose digests were compared.
    :param hashed: bytes of blobs that were read from the registry and hashed.
    """

    reference: str
    parts: tuple[Part, ...]
    compared: tuple[tuple[PartName, PartName], ...]
    partings: tuple[Parting, ...]
    layers: int = 0
    hashed: int = 0

    @property
    def agree(self) -> bool:
        """Whether at least two parts were compared, and none differed."""
        return bool(self.compared) and not self.partings

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.partings:
            count = len(self.partings)
            return f"They do not have the same image: {count} difference{'s' if count > 1 else ''}."
        if not self.compared:
            return "Nothing was compared: fewer than two of run, registry, daemon and lock could be asked."
        names = [part for part in PARTS if any(part in pair for pair in self.compared)]
        return f"{', '.join(names[:-1])} and {names[-1]} have the same image.".capitalize()

    def check(self) -> None:
        """Do nothing where all agree.

        :raises VerifyError: they differ, or fewer than two could be compared.
        """
        if not self.agree:
            raise VerifyError(self.summary, where=self.reference, hint="\n".join(map(str, self.partings[:_SHOWN])))

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "agree": self.agree, "summary": self.summary}
