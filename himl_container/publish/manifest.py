"""The manifest of an image, and the annotations that say where the image comes from.

Labels are part of the configuration, and so of the image's identity: they are a pure function of the lock
(:func:`himl_container.image.config.image_labels`). Annotations are of one push of it: who has the same lock at another
commit gets the same configuration and layers, under a manifest of its own. Names are those of the OCI image
specification ("Annotations") where it has one, else ``io.himl.``.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from himl_container.environment.model import Lock
from himl_container.errors import InputError
from himl_container.image.model import EPOCH
from himl_container.publish.model import TESTED
from himl_container.registry.model import OCI_CONFIG, OCI_MANIFEST, Descriptor, canonical_json, sha256_of

FINGERPRINT = "io.himl.fingerprint"
LOCK = "io.himl.lock"
VERSION = "io.himl.version"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
CREATED = "org.opencontainers.image.created"
REVISION = "org.opencontainers.image.revision"

_GIT_PATIENCE = 10.0  # seconds; a work tree on a slow disk is no reason to keep a push waiting
_LATEST = 253402300799  # seconds: the last that a date of four digits can say, 9999-12-31


def image_manifest(
    config: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> tuple[bytes, Descriptor]:
    """Return an OCI image manifest as canonical bytes, and its descriptor: the digest is known before a byte is sent.

    :param layers: the compressed layers, lowest first, matching the configuration's diff ids.
    """
    content: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, sha256_of(config), len(config)).as_json(),
        "layers": [Descriptor(layer.media_type, layer.digest, layer.size).as_json() for layer in layers],
    }
    if annotations:
        content["annotations"] = dict(annotations)
    data = canonical_json(content)
    return data, Descriptor(OCI_MANIFEST, sha256_of(data), len(data))


@dataclass(frozen=True)
class Origin:
    """What an image was made from, for its annotations.

    :param lock_bytes: the lock file as it is on the disk.
    :param root: the project's folder, whose git revision is told.
    :param tested: whether the smoke test has passed on this image.
    """

    lock: Lock
    lock_bytes: bytes
    fingerprint: str
    root: Path
    tested: bool


def image_annotations(origin: Origin, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations of a push, sorted by name.

    :raises InputError: ``SOURCE_DATE_EPOCH`` is not a number of seconds.
    """
    from himl_container import __version__

    base = origin.lock.base
    annotations = {
        FINGERPRINT: origin.fingerprint,
        LOCK: "sha256:" + hashlib.sha256(origin.lock_bytes).hexdigest(),
        TESTED: "true" if origin.tested else "false",
        VERSION: __version__,
        BASE_NAME: base.reference.partition("@")[0],
        BASE_DIGEST: base.digest,
        CREATED: created(origin.lock, environ),
        REVISION: git_revision(origin.root, environ),
    }
    return {name: value for name, value in sorted(annotations.items()) if value}


def created(lock: Lock, environ: Mapping[str, str]) -> str:
    """Return the image's time (RFC 3339): ``SOURCE_DATE_EPOCH``, else that of the newest package of the lock.

    Never the clock's: two machines that push the same image must say the same. A lock without any time gives
    that of the layers' entries.

    :raises InputError: ``SOURCE_DATE_EPOCH`` is not a number of seconds (reproducible-builds.org's specification).
    """
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if text:
        if not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) or int(text) > _LATEST:
            raise InputError(
                f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds since 1970",
                hint="Set it to a whole number, such as the result of 'git log -1 --format=%ct', or unset it.",
            )
        seconds = int(text)
    else:
        # Channels write milliseconds; very old ones wrote seconds.
        times = (t // 1000 if t > _LATEST else t for package in lock.conda if (t := package.timestamp) > 0)
        seconds = min(max(times, default=EPOCH), _LATEST)
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def git_revision(root: Path, environ: Mapping[str, str]) -> str:
    """Return the commit that a folder is at, with ``-dirty`` where files that git knows differ from it.

    Empty where the folder is in no git repository, nothing is committed yet, or there is no git.
    """
    # No program of the repository's own configuration may run, and no index is rewritten behind the user's back.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(root)]
    variables = {**environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        head = _output([*command, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"], variables)
        if not re.fullmatch(r"[0-9a-f]{40,64}", head):
            return ""
        status = [*command, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"]
        return head + ("-dirty" if _output(status, variables) else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_GIT_PATIENCE,
        check=True,
    )
    return done.stdout.decode("utf-8", "replace").strip()
