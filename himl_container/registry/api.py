"""A repository of a registry, as the rest of the package sees it; :func:`connect` gives the real one.

Every method may raise :class:`himl_container.errors.RegistryError` when the registry does not answer (after retries
with backoff, as long as it asks for with ``Retry-After``), refuses the login, or answers what the specification does
not allow. Methods are safe to call from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from himl_container.errors import RegistryError
from himl_container.registry.model import Descriptor, Manifest

if TYPE_CHECKING:
    from himl_container.progress import Reporter
    from himl_container.registry.credentials import Credentials

Sent = Callable[[int], None]
"""Told how many more bytes have gone out or come in; a negative number takes back what must be sent again."""


class Attachment(NamedTuple):
    """A document that is to be attached to an image.

    :param media_type: of the document; the artifact type says what it is for.
    """

    data: bytes
    artifact_type: str
    media_type: str
    annotations: Mapping[str, str] = {}


class WrongContentError(RegistryError):
    """What the registry gives is not what its digest says: its storage, or something in front of it, is damaged."""


class Repository(Protocol):
    """One repository (``myworkspace.azurecr.io/himl/train``), with the login that it needs.

    :param host: ``myworkspace.azurecr.io``, with the port where there is one.
    :param name: ``himl/train``.
    """

    @property
    def host(self) -> str:
        """The registry's address."""

    @property
    def name(self) -> str:
        """The repository's name inside the registry."""

    @property
    def requests(self) -> int:
        """Number of HTTP requests that this connection has made so far, those for tokens included."""

    def sibling(self, name: str) -> Repository:
        """Return another repository of the same registry, over the same connections and login."""

    def head(self, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, without its content; None when there is no such manifest (404 only)."""

    def manifest(self, reference: str) -> Manifest | None:
        """Return a manifest or index by tag or digest, its bytes compared with its digest; None on 404 only."""

    def put_manifest(self, data: bytes, media_type: str, reference: str) -> str:
        """Store a manifest under a tag or its digest and return the digest that the registry reports, always equal."""

    def blob_exists(self, digest: str, size: int | None = None) -> bool:
        """Whether the repository has a blob (``HEAD``), of this many bytes where the registry says how many it has."""

    def blob_readable(self, digest: str, size: int | None = None) -> bool:
        """As :meth:`blob_exists`, before a blob is sent: what the registry cannot read (500, always) has to be sent."""

    def mount(self, digest: str, source: str) -> bool:
        """Have the registry take a blob over from another of its repositories; whether it did."""

    def upload(self, path: Path, descriptor: Descriptor, *, sent: Sent | None = None) -> None:
        """Send a file's content as a blob, in chunks that are resumed after a cut; verified by its digest."""

    def upload_bytes(self, data: bytes) -> str:
        """Send a small blob and return its digest; nothing is sent when the repository has it."""

    def blob(self, digest: str, *, limit: int = 64 << 20) -> bytes:
        """Return a small blob, compared with its digest. At most ``limit`` bytes are taken."""

    def download(self, descriptor: Descriptor, target: Path, *, received: Sent | None = None) -> None:
        """Fetch a blob into a file, resumed after a cut; the file gets its name only when the digest agrees."""

    def stream(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes; raises at the end when they do not agree with its digest."""

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return what refers to a manifest: by the referrers API, else by the tag that stands in (``sha256-<hex>``)."""

    def attach(
        self,
        subject: Descriptor,
        data: bytes,
        *,
        artifact_type: str,
        media_type: str,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Store a document as an artifact that refers to a manifest; keeps the stand-in tag without the API."""

    def attach_all(self, subject: Descriptor, documents: Sequence[Attachment]) -> tuple[Descriptor, ...]:
        """Attach several documents, at the same time; as :meth:`attach` otherwise."""


def connect(
    name: str,
    *,
    reporter: Reporter | None = None,
    credentials: Credentials | None = None,
    environ: Mapping[str, str] | None = None,
) -> Repository:
    """Return a repository by its full name (``myworkspace.azurecr.io/himl/train``). Nothing is sent yet.

    :param reporter: told of every retry.
    :param credentials: where logins come from; default: environment, Docker's configuration, the Azure login.
    :param environ: the process's environment where not given; names proxies and certificates too.
    """
    from himl_container.registry.client import RegistryClient

    return RegistryClient.connect(name, reporter=reporter, credentials=credentials, environ=environ)
