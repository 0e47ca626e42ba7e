"""A manifest that is refused although the registry has its blobs: they are looked at, and it is sent again.

``distribution`` (2.8, in its file-system driver's ``PutContent``) writes the link to a blob anew with every upload of
it: it empties the file, and then fills it. A manifest that comes in between is refused with DIGEST_INVALID and
MANIFEST_BLOB_UNKNOWN. Clients that send the same blob at once meet that: the empty configuration, which all artifacts
share, or the layers of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from himl_container.registry.access import Access
from himl_container.registry.answers import Answer, Request
from himl_container.registry.refusals import MissingBlobsError
from himl_container.registry.retries import Failure

Resend = Mapping[str, Callable[[], None]]
"""What sends a blob of the manifest again, by its digest."""
_PUTS = 4
_FEW = 8  # blobs; that more of them are being written in the same moment is not likely


def put_again(
    access: Access, request: Request, data: bytes, *, exists: Callable[[str], bool], resend: Resend
) -> Answer:
    """Put a manifest, and again when the registry has, or has been sent, the blobs that it says to lack.

    The first time it is believed about what it has when it is asked for that blob alone; after that, what can be sent
    is sent whatever it says.

    :param data: the manifest. Blobs that it does not name are not looked at.
    :param exists: asks the registry for something that the manifest names.
    :raises himl_container.registry.refusals.MissingBlobsError: blobs are missing that cannot be sent from here, or it
        was refused each time.
    :raises RegistryError: anything else.
    """
    attempt, most = 1, min(_PUTS, access.transport.patience.attempts)
    while True:
        try:
            return access.transport.request(request)
        except MissingBlobsError as error:
            named = [digest for digest in error.digests if digest.encode() in data] or list(resend)
            if attempt == most or not named or len(named) > _FEW:
                raise
            for digest in named:
                there = exists(digest)
                if digest in resend and not (there and attempt == 1):
                    resend[digest]()
                elif not there:
                    raise
        failure = Failure("the registry refused it for blobs that it has")
        access.transport.patience.again(request.what, access.where, failure, attempt)
        attempt += 1
