"""The client of one repository: what :class:`himl_container.registry.api.Repository` asks for, over one transport."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.errors import RegistryError
from himl_container.progress import Reporter, SilentReporter
from himl_container.registry import downloads, manifests, referrers
from himl_container.registry.access import Access
from himl_container.registry.addresses import Address, parse_address
from himl_container.registry.answers import Request
from himl_container.registry.api import Attachment, Sent
from himl_container.registry.blob_lookup import UNSAID, blob_size
from himl_container.registry.descriptors import checked_digest
from himl_container.registry.headers import location
from himl_container.registry.login import LoginRefusedError
from himl_container.registry.model import EMPTY_JSON, OCI_EMPTY, OCI_MANIFEST, Descriptor, Manifest, sha256_of
from himl_container.registry.pools import DOCKER_CERTIFICATES, Pools
from himl_container.registry.retries import BrokenAnswerError, Patience
from himl_container.registry.transport import Transport
from himl_container.registry.uploads import CHUNK, BytesSource, FileSource, Source, Upload

if TYPE_CHECKING:
    from himl_container.registry.auth import Authenticator
    from himl_container.registry.credentials import Credentials


@dataclass
class _Known:
    """What was learnt of a registry, for all its repositories.

    :param begun: uploads that the registry began instead of mounting, by repository and digest.
    :param referrers_api: None until it was asked for.
    :param empty: repositories that have the empty configuration of artifacts.
    :param noting: held while a stand-in tag is read and written, so that our own threads do not overwrite each other.
    """

    begun: dict[tuple[str, str], str] = field(default_factory=dict)
    referrers_api: bool | None = None
    empty: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    noting: threading.Lock = field(default_factory=threading.Lock)


class RegistryClient:
    """A repository of a registry; safe to use from several threads. Made by :meth:`connect`.

    Everything raises :class:`himl_container.errors.RegistryError`, and what
    :class:`himl_container.registry.api.Repository` says.
    """

    def __init__(self, address: Address, transport: Transport, known: _Known, chunk: int) -> None:
        self._address = address
        self._access = Access(transport, address.name)
        self._known = known
        self._chunk = chunk

    @classmethod
    def connect(
        cls,
        name: str,
        *,
        reporter: Reporter | None = None,
        credentials: Credentials | None = None,
        environ: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        certificates: Path = DOCKER_CERTIFICATES,
        chunk: int = CHUNK,
    ) -> RegistryClient:
        """Return a repository by its full name; see :func:`himl_container.registry.api.connect`.

        :param patience: how often and how long a failed request is repeated; tells ``reporter`` where not given.
        :param certificates: Docker's folder of certificates by host.
        :param chunk: bytes of a chunk of an upload.
        :raises InputError: it is not the name of a repository.
        """
        environ = os.environ if environ is None else environ
        address = parse_address(name)

        def authorizer(transport: Transport) -> Authenticator:
            from himl_container.registry.auth import Authenticator
            from himl_container.registry.credentials import Credentials

            return Authenticator(
                credentials or Credentials.of(environ),
                transport.token_request,
                registry=transport.url,
                repository=address.name,
            )

        transport = Transport(
            address.endpoint,
            loopback=address.loopback,
            pools=Pools(environ, certificates=certificates),
            patience=patience or Patience(reporter or SilentReporter()),
            authorizer=authorizer,
        )
        return cls(address, transport, _Known(), chunk)

    @property
    def host(self) -> str:
        """The registry's address, as in names (``docker.io``)."""
        return self._address.host

    @property
    def name(self) -> str:
        """The repository's name inside the registry."""
        return self._address.name

    @property
    def requests(self) -> int:
        """Number of HTTP requests so far, those for tokens included; shared with siblings."""
        return self._access.transport.pools.requests

    def sibling(self, name: str) -> RegistryClient:
        """Return another repository of the same registry.

        :raises InputError: it is not the name of a repository.
        """
        address = parse_address(f"{self.host}/{name}")
        return RegistryClient(address, self._access.transport, self._known, self._chunk)

    def stop(self) -> None:
        """End the waits of all threads and let no further request begin (Ctrl-C, or another thread failed)."""
        self._access.transport.patience.stop()

    def close(self) -> None:
        """Close the connections that are not in use; they are opened again when they are needed."""
        self._access.transport.pools.close()

    def head(self, reference: str) -> Descriptor | None:
        """Return what a tag or digest names; None when there is no such manifest."""
        return manifests.head(self._access, reference)

    def manifest(self, reference: str) -> Manifest | None:
        """Return a manifest or index by tag or digest; None when there is none."""
        return manifests.manifest(self._access, reference)

    def put_manifest(self, data: bytes, media_type: str, reference: str) -> str:
        """Store a manifest under a tag or its digest.

        :raises himl_container.registry.refusals.MissingBlobsError: the registry lacks blobs that the manifest names.
        """
        return manifests.put_manifest(self._access, data, media_type, reference)[0]

    def blob_exists(self, digest: str, size: int | None = None) -> bool:
        """Whether the repository has a blob; whole, where its size is given: a power cut may leave a registry a part.

        :param size: bytes that it has to have.
        """
        found = blob_size(self._access, digest)
        return found is not None and (size is None or found in (size, UNSAID))

    def blob_readable(self, digest: str, size: int | None = None) -> bool:
        """Whether the repository can give a blob; as :meth:`blob_exists`, for who is about to send it otherwise.

        A registry whose disk was full may keep an empty link to a blob (``distribution`` does), and answers 500 to each
        question about it from then on, until the blob is sent again.
        """
        try:
            return self.blob_exists(digest, size)
        except BrokenAnswerError as error:
            self._access.transport.patience.reporter.info(f"{error.where}: {error.what}; it is sent again")
            return False

    def mount(self, digest: str, source: str) -> bool:
        """Have the registry take a blob over from another of its repositories; whether it did.

        A source that the login may not read, or that does not exist, is no error: nothing is mounted then. When the
        registry begins an upload instead, :meth:`upload` goes on with it.
        """
        access, path = self._access, self._access.path("blobs/uploads/")
        origin = parse_address(f"{self.host}/{source}").name
        try:
            answer = access.transport.request(
                Request(
                    "POST",
                    f"{path}?mount={checked_digest(digest, access.where)}&from={origin}",
                    f"Mount of {digest[:19]}",
                    scope=f"{access.push} repository:{origin}:pull",
                    expect=(201, 202, 400, 404, 405),
                )
            )
        except LoginRefusedError:
            return False
        if answer.status == 202:
            with self._known.lock:
                self._known.begun[self.name, digest] = location(answer.headers.get("Location"), answer.url)
        reported = answer.headers.get("Docker-Content-Digest", digest)
        return answer.status == 201 and reported == digest

    def upload(self, path: Path, descriptor: Descriptor, *, sent: Sent | None = None) -> None:
        """Send a file's content as a blob. Whether the repository has it is not asked before.

        :param sent: what it raises ends the upload.
        :raises StorageError: the file cannot be read.
        """
        self._upload(FileSource(path), descriptor, sent)

    def upload_bytes(self, data: bytes) -> str:
        """Send a small blob and return its digest; nothing is sent when the repository has it."""
        digest = sha256_of(data)
        if data == EMPTY_JSON and self.name in self._known.empty:
            return digest
        if not self.blob_readable(digest):
            self._send(data, digest)
        if data == EMPTY_JSON:  # each artifact needs it, and one push makes several
            self._known.empty.add(self.name)
        return digest

    def blob(self, digest: str, *, limit: int = 64 << 20) -> bytes:
        """Return a small blob, compared with its digest."""
        return downloads.small_blob(self._access, digest, limit)

    def download(self, descriptor: Descriptor, target: Path, *, received: Sent | None = None) -> None:
        """Fetch a blob into a file.

        :raises StorageError: the file cannot be written.
        """
        downloads.download(self._access, descriptor, target, received)

    def stream(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes; raises at the end when they do not agree with its digest."""
        return downloads.blob_pieces(self._access, descriptor)

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return what refers to a manifest, of one artifact type or of all."""
        found = None
        if self._known.referrers_api is not False:
            found = referrers.list_by_api(self._access, digest, artifact_type)
            self._known.referrers_api = found is not None
        if found is None:
            found = referrers.list_by_tag(self._access, digest)
        return referrers.chosen(found, artifact_type)

    def attach(
        self,
        subject: Descriptor,
        data: bytes,
        *,
        artifact_type: str,
        media_type: str,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Store a document as an artifact that refers to a manifest, and return the artifact's descriptor.

        The same document for the same manifest is the same artifact, so attaching it again changes nothing.
        """
        return self.attach_all(subject, [Attachment(data, artifact_type, media_type, annotations or {})])[0]

    def attach_all(self, subject: Descriptor, documents: Sequence[Attachment]) -> tuple[Descriptor, ...]:
        """Attach several documents, all at once; the stand-in tag is written once for all of them."""
        empty = Descriptor(OCI_EMPTY, self.upload_bytes(EMPTY_JSON), len(EMPTY_JSON))
        with ThreadPoolExecutor(max(len(documents), 1), thread_name_prefix="attach") as pool:
            stored = list(pool.map(lambda document: self._attached(subject, document, empty), documents))
        unknown = [entry for entry, recorded in stored if recorded != subject.digest]
        if unknown:
            with self._known.noting:
                referrers.note_by_tag(self._access, subject.digest, unknown)
        return tuple(entry for entry, _ in stored)

    def _attached(self, subject: Descriptor, document: Attachment, empty: Descriptor) -> tuple[Descriptor, str]:
        """Store one artifact; return its descriptor, and the subject that the registry says to have recorded."""
        data, kind, media_type, annotations = document
        content = Descriptor(media_type, self.upload_bytes(data), len(data))
        manifest = referrers.artifact_manifest(subject, content, kind, annotations, empty)
        blobs = {content.digest: data, empty.digest: EMPTY_JSON}
        resend = {digest: partial(self._send, blob, digest) for digest, blob in blobs.items()}
        digest, recorded = manifests.put_manifest(
            self._access, manifest, OCI_MANIFEST, sha256_of(manifest), resend=resend
        )
        return Descriptor(OCI_MANIFEST, digest, len(manifest), dict(annotations), kind), recorded

    def _send(self, data: bytes, digest: str) -> None:
        self._upload(BytesSource(data), Descriptor("application/octet-stream", digest, len(data)), None)

    def _upload(self, source: Source, descriptor: Descriptor, sent: Sent | None) -> None:
        checked_digest(descriptor.digest, self._access.where)
        with self._known.lock:
            begun = self._known.begun.pop((self.name, descriptor.digest), "")
        Upload(
            self._access,
            descriptor,
            source,
            arrived=lambda: blob_size(self._access, descriptor.digest) in (descriptor.size, UNSAID),
            verify=lambda: self._verify(descriptor),
            begun=begun,
            sent=sent,
            chunk=self._chunk,
        ).run()

    def _verify(self, descriptor: Descriptor) -> None:
        """Compare what the registry says that it has with what was sent.

        :raises RegistryError: it has nothing, or something else.
        """
        size = blob_size(self._access, descriptor.digest)
        if size not in (descriptor.size, UNSAID):
            has = "does not have it" if size is None else f"has {size} bytes under its digest"
            raise RegistryError(
                f"The registry took {descriptor.digest} ({descriptor.size} bytes), but {has}",
                where=self._access.where,
                hint="The registry's storage or something in front of it is damaged. No tag was changed.",
            )
