"""A minimal Debian base image from a Debian mirror, without any image registry.

``mmdebstrap`` unpacks and configures the packages; the result is one layer, the same bytes for the same packages: every
time is fixed (``SOURCE_DATE_EPOCH``), and what is of this machine or of this moment (logs, caches, host name, resolver,
machine id) is left out.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.urls import redact, scrub
from himl_container.errors import BuildError, InputError, StorageError
from himl_container.image.archive import docker_archive
from himl_container.image.compose import CREATED, IMAGE_ARCHITECTURES, image_file
from himl_container.image.config import DEFAULT_PATH
from himl_container.image.model import EPOCH, ComposedImage, Layer
from himl_container.progress import Reporter
from himl_container.registry.reference import parse_reference

DEFAULT_SUITE = "bookworm"
INCLUDED = ("ca-certificates",)
"""Packages beyond Debian's required ones and apt: scripts in the image use TLS."""

MMDEBSTRAP_HINT = (
    "Install it with 'sudo apt-get install mmdebstrap' (Debian, Ubuntu), make the image on a machine that has it "
    "('base create --output FILE' there, 'base load FILE' here), or name another base image with --base-image."
)

_WORD = re.compile(r"[a-z0-9][a-z0-9.+-]*\Z")
_URL = re.compile(r"https?://[A-Za-z0-9._~:/\[\]@%+-]+\Z")

# Documentation and translations make up a third of a minimal system. Copyright files stay: licences ask for it. The
# option stays in the image, so packages that are installed later are as small.
_DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

# Run with the new root as $1. Programs of the host, arguments without any input of the user.
_CLEAN_HOOK = (
    'rm -rf "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/var/log/* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* '
    '"$1"/var/cache/debconf/*-old "$1"/var/cache/ldconfig/aux-cache "$1"/var/lib/dpkg/*-old "$1"/etc/*- '
    '"$1"/etc/machine-id "$1"/var/lib/dbus/machine-id "$1"/run/* "$1"/tmp/*'
)


@dataclass(frozen=True)
class DebianBase:
    """What a Debian base image is made from.

    :param suite: Debian's release name (``bookworm``).
    :param mirror: URL of a Debian mirror (``http`` or ``https``); empty for Debian's own, with its security updates.
    :param security_mirror: URL of a mirror of Debian's security updates, beside ``mirror``; empty for none.
    :param include: packages beyond the minimal system.
    :param components: archive areas (``main``).
    :param platform: Conda's name of the platform.
    """

    suite: str = DEFAULT_SUITE
    mirror: str = ""
    security_mirror: str = ""
    include: tuple[str, ...] = INCLUDED
    components: tuple[str, ...] = ("main",)
    platform: str = "linux-64"

    @property
    def sources(self) -> tuple[str, ...]:
        """The lines of ``sources.list``; none leaves them to mmdebstrap, which knows Debian's own servers."""
        if not self.mirror:
            return ()
        areas = " ".join(self.components)
        lines = [f"deb {self.mirror} {self.suite} {areas}"]
        if self.suite not in ("sid", "unstable"):
            lines.append(f"deb {self.mirror} {self.suite}-updates {areas}")
            if self.security_mirror:
                lines.append(f"deb {self.security_mirror} {self.suite}-security {areas}")
        return tuple(lines)


def check_base(base: DebianBase) -> None:
    """Refuse what cannot stand in ``sources.list`` or would put a credential into the image.

    :raises InputError: a malformed name or URL, or a URL with a user name in it.
    """
    for what, words in (
        ("suite", (base.suite,)),
        ("component", base.components),
        ("package", base.include),
    ):
        for word in words:
            if not _WORD.match(word):
                raise InputError(f"{word!r} is not the name of a {what}")
    if base.platform not in IMAGE_ARCHITECTURES:
        raise InputError(f"there is no Debian for {base.platform!r}", hint=f"Known: {', '.join(IMAGE_ARCHITECTURES)}.")
    for url in filter(None, (base.mirror, base.security_mirror)):
        if not _URL.match(url):
            raise InputError(
                f"{redact(url)!r} is not the address of a Debian mirror",
                hint="Expected http:// or https://. A folder can be served: python3 -m http.server --directory FOLDER.",
            )
        if "@" in url.split("://", 1)[1].split("/", 1)[0]:
            raise InputError(
                f"the mirror {redact(url)!r} has a user name or password in it, which would be stored in the image",
                hint="Use a mirror that needs none, or serve it on this machine (http://localhost).",
            )
    if base.security_mirror and not base.mirror:
        raise InputError(
            "a mirror of the security updates is named, but no mirror of Debian", hint="Name both, or neither."
        )


def create_base(tag: str, base: DebianBase, *, cache: Cache, reporter: Reporter) -> ComposedImage:
    """Make a base image of one layer, which lies in the cache's store afterwards.

    :raises BuildError: mmdebstrap is missing or failed; the error has the end of its output.
    :raises InputError: as :func:`check_base`.
    """
    check_base(base)
    name = parse_reference(tag)
    if name.digest:
        raise InputError("an image that is about to be made cannot have a digest", where=tag)
    program = shutil.which("mmdebstrap")
    if program is None:
        raise BuildError("the program 'mmdebstrap' is missing", hint=MMDEBSTRAP_HINT)
    with cache.new_folder() as folder:
        output = folder / "base.tar"
        _run(_command(program, base, output), folder, base, reporter)
        layer = _store(output, base, cache)
    config = {
        "Cmd": ["bash"],
        "Env": [f"PATH={DEFAULT_PATH}"],
        "Labels": {"org.opencontainers.image.title": f"Debian {base.suite}, minimal"},
    }
    history = [{"created": CREATED, "created_by": f"himl-container base create: {layer.name}"}]
    content = image_file(
        config=config,
        architecture=IMAGE_ARCHITECTURES[base.platform],
        diff_ids=(layer.digest,),
        history=history,
    )
    return ComposedImage(config=content, diff_ids=(layer.digest,), layers=(layer,), tag=name.tagged)


def write_archive(image: ComposedImage, path: Path) -> int:
    """Write an image as a file that ``docker load`` and ``base load`` take, and return its size in bytes.

    The file appears when it is whole. It is the same bytes for the same image.

    :raises StorageError: the file cannot be written.
    """
    shipment = docker_archive(image, image.layers, names=(image.tag,))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            for chunk in shipment.chunks(lambda _layer, _amount: None):
                file.write(chunk)
        os.replace(part, path)
    except OSError as error:
        raise StorageError(
            f"cannot write the archive: {error.strerror or error}",
            where=str(path),
            hint="Free some space, or name a file in another folder.",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def _command(program: str, base: DebianBase, output: Path) -> list[str]:
    return [
        program,
        "--variant=minbase",
        "--format=tar",
        f"--architectures={IMAGE_ARCHITECTURES[base.platform]}",
        f"--components={','.join(base.components)}",
        *([f"--include={','.join(base.include)}"] if base.include else []),
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        '--aptopt=APT::Install-Recommends "false"',
        f"--customize-hook={_CLEAN_HOOK}",
        base.suite,
        str(output),
        *base.sources,
    ]


def _run(command: Sequence[str], folder: Path, base: DebianBase, reporter: Reporter) -> None:
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8", "TZ": "UTC", "TMPDIR": str(folder)}
    tail: deque[str] = deque(maxlen=25)
    with (
        reporter.step("create", f"Debian {base.suite} from {base.mirror}") as task,
        subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            for line in _lines(process):
                tail.append(line)
                task.note(line)
        except BaseException:
            process.terminate()
            raise
        if process.wait():
            text = "\n".join(f"  {line}" for line in tail)
            raise BuildError(
                f"mmdebstrap ended with {process.returncode}:\n{scrub(text)}",
                where=base.mirror,
                hint=_hint("\n".join(tail)),
            )


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    for raw in process.stdout or ():
        line = raw.decode(errors="replace").rstrip()
        if line:
            yield line


def _hint(output: str) -> str:
    if "NO_PUBKEY" in output or "is not signed" in output:
        return "The mirror's signature cannot be checked; install 'debian-archive-keyring'."
    if "newuidmap" in output or "unshare" in output or "subuid" in output:
        return "Without root, mmdebstrap needs user namespaces: install 'uidmap', or run this command with sudo."
    if "does not have a Release file" in output or "Could not resolve" in output or "Failed to fetch" in output:
        return "Check the name of the suite, and that the mirror can be reached; --mirror names another."
    return ""


def _store(output: Path, base: DebianBase, cache: Cache) -> Layer:
    digest, size = hashlib.sha256(), 0
    with open(output, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    name = f"sha256:{digest.hexdigest()}"
    blob = cache.blob(name)
    cache.folder(*blob.parent.relative_to(cache.root).parts)
    output.chmod(0o644)
    os.replace(output, blob)
    return Layer(f"Debian {base.suite}", digest.hexdigest(), name, size, entries=0, path=blob)
