"""What a Docker daemon needs before ``docker`` itself can pull from the emulator's registry and push to it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from himl_container.emulator.installation import Installation

CERTIFICATES = Path("/etc/docker/certs.d")
DROP_IN = Path("/etc/systemd/system/docker.service.d/himl-emulator.conf")


@dataclass(frozen=True)
class DockerSetup:
    """The steps, for this emulator as it runs now.

    :param host: the registry.
    :param certificate: of the emulator's authority, and where the daemon looks for it.
    :param proxy: the address through which the daemon reaches the registry.
    """

    host: str
    certificate: tuple[Path, Path]
    proxy: str

    @property
    def drop_in(self) -> str:
        """The text of a systemd drop-in that gives the daemon its proxy."""
        return f'[Service]\nEnvironment="HTTPS_PROXY={self.proxy}" "NO_PROXY=127.0.0.1,localhost"\n'

    def as_json(self) -> dict[str, object]:
        """Return the steps as JSON values."""
        source, target = self.certificate
        return {
            "registry": self.host,
            "certificate": {"from": str(source), "to": str(target)},
            "proxy": self.proxy,
            "drop_in": {"path": str(DROP_IN), "text": self.drop_in},
        }

    def as_text(self) -> str:
        """Return the steps for a reader with systemd; each line that is no comment can be pasted into a shell."""
        source, target = (shlex.quote(str(path)) for path in self.certificate)
        folder = shlex.quote(str(self.certificate[0].parent))
        drop_in = " ".join(shlex.quote(line) for line in self.drop_in.splitlines())
        log_in = f'printf %s "$AZURE_CLIENT_SECRET" | docker login {self.host} -u "$AZURE_CLIENT_ID" --password-stdin'
        lines = (
            f"# The daemon trusts {self.host}:",
            f"sudo install -D -m 644 {source} {target}",
            "# It reaches it through the emulator. Other registries it then reaches only where allow-hosts names them:",
            f"printf '%s\\n' {drop_in} | sudo install -D -m 644 /dev/stdin {DROP_IN}",
            "sudo systemctl daemon-reload && sudo systemctl restart docker",
            "# Log in:",
            f"himl-container emulator exec --data-dir {folder} -- sh -c {shlex.quote(log_in)}",
            "# Take it back:",
            f"docker logout {self.host}; sudo rm -r {DROP_IN} {shlex.quote(str(self.certificate[1].parent))}",
            "sudo systemctl daemon-reload && sudo systemctl restart docker",
        )
        return "\n".join(lines)


def docker_setup(installation: Installation, port: int) -> DockerSetup:
    """Return what a daemon on this machine needs.

    :param port: at which the emulator listens.
    """
    host = installation.workspace.registry_host
    certificate = installation.folder / "ca.pem", CERTIFICATES / host / "ca.crt"
    return DockerSetup(host, certificate, f"http://127.0.0.1:{port}")
