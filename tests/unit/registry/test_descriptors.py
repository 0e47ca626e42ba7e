"""Descriptors, tags and digests of strangers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import RegistryError
from himl_container.registry.descriptors import checked_reference, is_digest, parse_descriptor
from himl_container.registry.model import OCI_TAR_GZIP, Descriptor, sha256_of
from himl_container.registry.refusals import MissingBlobsError, refusal

DIGEST = sha256_of(b"")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10), lambda inner: st.lists(inner, max_size=3)
)


def test_a_descriptor_comes_back_as_it_was_written() -> None:
    descriptor = Descriptor(OCI_TAR_GZIP, DIGEST, 12, {"a": "b"}, "application/vnd.x.y+json")
    assert parse_descriptor(descriptor.as_json()) == descriptor


@pytest.mark.parametrize(
    "changed",
    [
        {"digest": "sha256:12"},
        {"digest": "sha512:" + "0" * 128},
        {"digest": DIGEST + "\n"},
        {"digest": "sha256:../../../etc/passwd"},
        {"digest": None},
        {"size": -1},
        {"size": 1 << 60},
        {"size": "12"},
        {"size": True},
        {"size": 1.5},
        {"mediaType": "text/plain\r\nX: y"},
        {"mediaType": ""},
        {"mediaType": None},
        {"artifactType": 5},
        {"artifactType": "no type"},
        {"annotations": ["a"]},
    ],
)
def test_what_is_no_descriptor_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(RegistryError):
        parse_descriptor({**Descriptor(OCI_TAR_GZIP, DIGEST, 12).as_json(), **changed}, "somewhere")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("mediaType", "digest", "size", "annotations"), json_values)))
def test_any_json_is_a_descriptor_or_refused(value: object) -> None:
    try:
        found = parse_descriptor(value)
    except RegistryError:
        return
    assert is_digest(found.digest)


@given(st.text(max_size=140))
def test_a_reference_is_safe_in_an_address_or_refused(text: str) -> None:
    try:
        checked_reference(text)
    except RegistryError:
        return
    assert not set(text) & set("/?#%\\@ \r\n")


@given(st.binary(max_size=100), st.integers(100, 599))
def test_every_answer_becomes_an_error_in_words(data: bytes, status: int) -> None:
    error = refusal(status, {}, data, what="Look-up", where="host", now=0)
    assert str(status) in str(error)


def test_missing_blobs_are_named() -> None:
    data = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"x","detail":{"Digest":"%s"}}]}' % DIGEST.encode()
    error = refusal(404, {}, data, what="Upload", where="host", now=0)
    assert isinstance(error, MissingBlobsError)
    assert error.digests == (DIGEST,)
