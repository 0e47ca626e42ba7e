"""One repository behind a transport: its addresses, and the scopes of its login."""

from __future__ import annotations

from dataclasses import dataclass

from himl_container.registry.transport import Transport


@dataclass(frozen=True)
class Access:
    """A repository of a registry.

    :param name: inside the registry; checked before (:func:`himl_container.registry.addresses.parse_address`).
    """

    transport: Transport
    name: str

    @property
    def pull(self) -> str:
        """The scope for reading (token specification of the ``distribution`` project)."""
        return f"repository:{self.name}:pull"

    @property
    def push(self) -> str:
        """The scope for writing."""
        return f"repository:{self.name}:pull,push"

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.transport.endpoint}/{self.name}"

    def path(self, rest: str) -> str:
        """Return the path of something in the repository (``blobs/sha256:...``)."""
        return f"/v2/{self.name}/{rest}"
