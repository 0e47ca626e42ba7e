"""A real registry for tests: Debian's ``docker-registry`` (the ``distribution`` server) on a free port of this machine.

``with registry(tmp_path) as host:`` is all that most tests need. The host is a text (``127.0.0.1:40001``) with a
few more things to ask for, see :class:`Host`. What the registry stores stays in its folder, so a second ``with`` finds
it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kit

_LISTENING = re.compile(r'msg="listening on ([^" ]*):(\d+)(?:, tls)?"')


@dataclass(frozen=True)
class TokenService:
    """Whom the registry trusts to give tokens (token authentication of the ``distribution`` specification).

    :param bundle: PEM file with the certificate of the key that signs the tokens.
    """

    realm: str
    service: str
    issuer: str
    bundle: Path


class Host(str):
    """The address of a running registry, ``127.0.0.1:40001``.

    ``url`` is with its scheme, ``ca`` the certificate that clients must trust (TLS only), ``folder`` where it stores,
    ``log`` its log file, ``pid`` its process.
    """

    url: str
    ca: Path | None
    folder: Path
    log: Path
    pid: int

    def blobs(self) -> list[str]:
        """Return the digests of all blobs and manifests that are stored."""
        found = (self.folder / "docker/registry/v2/blobs/sha256").glob("*/*/data")
        return sorted(f"sha256:{path.parent.name}" for path in found)

    def blob_file(self, digest: str) -> Path:
        """Return the file of a blob, for tests that damage it."""
        value = digest.removeprefix("sha256:")
        return self.folder / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


def require_registry() -> None:
    """Skip the test (in CI: fail it) where ``docker-registry`` is not installed."""
    if shutil.which("docker-registry") is None:
        kit.lacking("docker-registry is not installed; scripts/setup.sh installs it")


def bcrypt(password: str) -> str:
    """Return a password as htpasswd files hold it, by the machine's libcrypt."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed = library.crypt(password.encode(), b"$2b$04$" + secrets.token_hex(11).encode())
    assert hashed, "libcrypt does not know bcrypt"
    return bytes(hashed).decode()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine's loopback names, its own authority; return it and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    if certificate.exists():
        return certificate, key
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = ("-subj", "/CN=registry of a test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", key, "-out", certificate)
    subprocess.run(["openssl", "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
    return certificate, key


@contextlib.contextmanager
def registry(
    folder: Path,
    *,
    htpasswd: Mapping[str, str] | None = None,
    token: TokenService | None = None,
    tls: bool = False,
    readonly: bool = False,
    mirror: str = "",
    port: int = 0,
    environ: Mapping[str, str] | None = None,
    storage: Path | None = None,
) -> Iterator[Host]:
    """Run a registry for the length of the context.

    :param folder: for its configuration, log and (in ``store``) what it stores; made where it is missing.
    :param htpasswd: passwords by user, for basic authentication.
    :param token: for token authentication.
    :param tls: speak https, with a certificate of its own authority (``Host.ca``).
    :param readonly: refuse every write (405).
    :param mirror: the address of the registry that this one is a pull-through cache of.
    :param port: a fixed port, for a registry that is to come back where it was.
    :param environ: more variables for the process.
    :param storage: another folder to store in (a small file system, for a full disk).
    """
    require_registry()
    folder.mkdir(parents=True, exist_ok=True)
    store = storage or folder / "store"
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(store)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of the tests"},
    }
    if readonly:
        config["storage"]["maintenance"] = {"readonly": {"enabled": True}}
    if mirror:
        config["proxy"] = {"remoteurl": mirror}
    if htpasswd is not None:
        users = folder / "htpasswd"
        users.write_text("".join(f"{user}:{bcrypt(word)}\n" for user, word in htpasswd.items()), encoding="utf-8")
        config["auth"] = {"htpasswd": {"realm": "registry of a test", "path": str(users)}}
    if token is not None:
        config["auth"] = {
            "token": {
                "realm": token.realm,
                "service": token.service,
                "issuer": token.issuer,
                "rootcertbundle": str(token.bundle),
            }
        }
    certificate: Path | None = None
    if tls:
        certificate, key = _certificate(folder)
        config["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
    settings = folder / "config.yml"
    settings.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    log = folder / "registry.log"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("REGISTRY_", "OTEL_"))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**clean, **(environ or {})},
        )
    try:
        host = Host(f"127.0.0.1:{port_of(process, log)}")
        host.url = f"{'https' if tls else 'http'}://{host}"
        host.ca, host.folder, host.log, host.pid = certificate, store, log, process.pid
        yield host
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the registry listens and return its port, which it writes into its log."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        text = log.read_text(encoding="utf-8", errors="replace")
        if found := _LISTENING.search(text):
            return int(found[2])
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise AssertionError(f"docker-registry did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")
