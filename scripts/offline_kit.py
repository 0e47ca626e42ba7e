"""The offline kit: what ``himl-container`` needs where no public registry is reached.

``python scripts/offline_kit.py [--offline]`` prepares, below ``.kit/``, a Conda channel and a base image as far as they
are needed here, and prints the variables that make ``himl-container`` use them, as lines for a shell to evaluate::

    eval "$(python scripts/offline_kit.py)"

Where conda-forge can be reached, it is used; the same for the registry of the default base image. ``--offline`` takes
the kit's own whatever can be reached. A variable that is set already is left alone. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import himl_container

ROOT = Path(__file__).resolve().parent.parent
KIT = ROOT / ".kit"
_MAKER = Path(himl_container.__file__).parent / "image" / "base_create.py"
_RECIPE = hashlib.sha256(_MAKER.read_bytes()).hexdigest()[:12]
BASE_IMAGE = f"himl-base:kit-{_RECIPE}"
"""The kit's base image: a minimal Debian, made with ``himl-container base create`` and no image registry.

Another recipe makes another image, so that a machine that was used before does not keep an old one.
"""

SUITE = "bookworm"
_REACH_SECONDS = 5.0

if str(ROOT / "scripts") not in sys.path:
    sys.path.insert(0, str(ROOT / "scripts"))


def kit_channel() -> Path:
    """Return the folder of the made Conda channel, made when it is missing or out of date."""
    from make_channel import make_channel

    return make_channel(KIT / "channel")


def kit_base_image() -> str:
    """Return the name of the kit's base image, which the daemon has afterwards.

    :raises RuntimeError: it can neither be loaded nor made; the text says why.
    """
    KIT.mkdir(exist_ok=True)
    archive = KIT / f"base-{_RECIPE}.tar"
    with open(KIT / "base.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _docker("image", "inspect", BASE_IMAGE).returncode == 0:
            return BASE_IMAGE
        if not archive.is_file():
            _say(f"making the base image {BASE_IMAGE} (Debian {SUITE})")
            _himl("base", "create", BASE_IMAGE, "--suite", SUITE, "--output", str(archive))
        _himl("base", "load", str(archive))
    return BASE_IMAGE


def environment(*, offline: bool = False) -> dict[str, str]:
    """Return the variables for this machine; nothing is made that is not needed.

    :param offline: take the kit's own channel and base image without asking what can be reached.
    """
    variables = {}
    if not os.environ.get("HIML_CONTAINER_CHANNEL_MIRRORS") and (offline or not _reaches_conda_forge()):
        if not offline:
            _say("conda-forge cannot be reached; a channel is made from this machine's Python")
        variables["HIML_CONTAINER_CHANNEL_MIRRORS"] = f"conda-forge={kit_channel().as_uri()}"
    if not os.environ.get("HIML_CONTAINER_BASE_IMAGE") and (offline or not _reaches_default_base()):
        if not offline:
            _say("the default base image cannot be reached; a Debian one is made")
        variables["HIML_CONTAINER_BASE_IMAGE"] = kit_base_image()
    return variables


def _reaches_conda_forge() -> bool:
    import rattler

    # rattler knows where conda-forge is, its alias and environment variables included.
    return _answers(f"{str(rattler.Channel('conda-forge').base_url).rstrip('/')}/noarch/repodata.json.zst")


def _reaches_default_base() -> bool:
    from himl_container.settings import DEFAULT_BASE_IMAGE

    if _docker("image", "inspect", DEFAULT_BASE_IMAGE).returncode == 0:
        return True
    return _answers(f"https://{DEFAULT_BASE_IMAGE.partition('/')[0]}/v2/")


def _answers(url: str) -> bool:
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_REACH_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # a registry that wants a login first is there
    except OSError:
        return False


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker")
    if program is None:
        raise RuntimeError("the program 'docker' is missing; scripts/setup.sh says how to get it")
    return subprocess.run([program, *arguments], check=False, capture_output=True, text=True)


def _himl(*arguments: str) -> None:
    program = Path(sys.executable).parent / "himl-container"
    done = subprocess.run([program, *arguments], check=False, stdout=sys.stderr)
    if done.returncode != 0:
        raise RuntimeError(f"'himl-container {shlex.join(arguments)}' failed with exit code {done.returncode}")


def _say(text: str) -> None:
    print(f"kit: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Prepare the kit and print the variables."""
    parser = argparse.ArgumentParser(description="Prepare the offline kit and print the variables that use it.")
    parser.add_argument("--offline", action="store_true", help="use the kit even where the public sources are reached")
    try:
        variables = environment(offline=parser.parse_args().offline)
    except RuntimeError as error:
        _say(str(error))
        return 1
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
