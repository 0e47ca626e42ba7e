"""Small packages, each for one thing that a Conda package can contain or do."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import sysconfig
from base64 import urlsafe_b64encode
from pathlib import Path

from channel.interpreter import with_run_path
from channel.package import PLACEHOLDER, Entry, Package

_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
_TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
_INSTALLERS_OWN = ("RECORD", "REQUESTED", "direct_url.json")
_PYTHON = "python >=3.10"

LONG_FOLDER = "share/long-paths/" + "/".join(["a-folder-whose-name-is-long-enough"] * 7)  # 261 characters
LONG_NAME = "n" * 180 + ".txt"


def sample_packages() -> list[Package]:
    """Return all of them."""
    return [
        *(_tinylib(version) for version in ("1.0", "1.1", "2.0")),
        _python_package("tinyold", "1.0", {"tinyold.py": "WANTS = 'tinylib<2'\n"}, ("tinylib <2",)),
        _python_package("tinynew", "1.0", {"tinynew.py": "WANTS = 'tinylib>=2'\n"}, ("tinylib >=2",)),
        _tinytool(),
        _native(),
        _data(),
        _prefix_text(),
        _prefix_binary(),
        _activation(),
        *_clashes(),
        _links(),
        _long_paths(),
        _post_link(),
        Package("needs-cuda", "1.0", depends=["__cuda >=11"], noarch="generic"),
        Package("needs-later-glibc", "1.0", depends=["__glibc >=99"], subdir="linux-64"),
        Package("meta", "1.0", depends=["tinytool", "prefix-text"], noarch="generic"),
    ]


def installed_package(name: str) -> Package | None:
    """A pure Python distribution of the running environment, without dependencies; None where it is not installed."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    entries = []
    for file in sorted(distribution.files or (), key=str):
        path = Path(str(file.locate()))
        belongs = file.parts[0] != ".." and "__pycache__" not in file.parts and file.name not in _INSTALLERS_OWN
        if belongs and path.is_file():
            data = b"conda\n" if file.name == "INSTALLER" else path.read_bytes()
            entries.append(Entry(f"site-packages/{file.as_posix()}", data))
    info = next(e.path for e in entries if e.path.endswith(".dist-info/METADATA")).removesuffix("METADATA")
    entries.append(Entry(f"{info}RECORD", _record(entries, info)))
    scripts = [f"{e.name} = {e.value}" for e in distribution.entry_points if e.group == "console_scripts"]
    return Package(
        distribution.metadata["Name"].lower(),
        distribution.version,
        entries,
        depends=[_PYTHON],
        noarch="python",
        entry_points=sorted(s for s in scripts if not s.startswith("pip3.")),
        build="pyh0_0",
    )


def _python_package(
    name: str,
    version: str,
    modules: dict[str, str],
    depends: tuple[str, ...] = (),
    *,
    entry_points: tuple[str, ...] = (),
    legacy: bool = False,
) -> Package:
    """A noarch python package with ``dist-info``, as a build of a real distribution has it."""
    entries = [Entry(f"site-packages/{path}", text.encode()) for path, text in modules.items()]
    info = f"site-packages/{name}-{version}.dist-info/"
    requires = "".join(f"Requires-Dist: {d.replace(' ', '')}\n" for d in depends if not d.startswith("python"))
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.10\n{requires}"
    wheel = b"Wheel-Version: 1.0\nGenerator: himl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    entries += [Entry(f"{info}METADATA", metadata.encode()), Entry(f"{info}WHEEL", wheel)]
    entries.append(Entry(f"{info}INSTALLER", b"conda\n"))
    if entry_points:
        text = "[console_scripts]\n" + "".join(f"{e}\n" for e in entry_points)
        entries.append(Entry(f"{info}entry_points.txt", text.encode()))
    entries.append(Entry(f"{info}RECORD", _record(entries, info)))
    return Package(
        name,
        version,
        entries,
        depends=[_PYTHON, *depends],
        noarch="python",
        entry_points=entry_points,
        legacy=legacy,
        build="pyh0_0",
    )


def _record(entries: list[Entry], info: str) -> bytes:
    lines = []
    for entry in sorted(entries, key=lambda e: e.path):
        digest = urlsafe_b64encode(hashlib.sha256(entry.data).digest()).rstrip(b"=").decode()
        lines.append(f"{entry.path.removeprefix('site-packages/')},sha256={digest},{len(entry.data)}\n")
    return "".join([*lines, f"{info.removeprefix('site-packages/')}RECORD,,\n"]).encode()


def _tinylib(version: str) -> Package:
    """Several versions of one small package: for locking, upgrading and comparing."""
    text = f'"""A very small library."""\n\n__version__ = "{version}"\n\n\ndef double(number):\n    return 2 * number\n'
    return _python_package("tinylib", version, {"tinylib/__init__.py": text})


def _tinytool() -> Package:
    """An entry point, in the old format."""
    text = "import tinylib\n\n\ndef main():\n    print('tinytool with tinylib', tinylib.__version__)\n"
    entry_points = ("tinytool = tinytool.cli:main",)
    modules = {"tinytool/__init__.py": "", "tinytool/cli.py": text}
    return _python_package("tinytool", "1.0", modules, ("tinylib >=1.0",), entry_points=entry_points, legacy=True)


def _native() -> Package:
    """A package for one Python only, with a real extension module: one of this Python's own under another package."""
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    module = with_run_path(stdlib / "lib-dynload" / f"_queue{_SUFFIX}", "$ORIGIN/../../..")
    folder = f"lib/python{_VERSION}/site-packages"
    text = b"from tinynative._queue import SimpleQueue\n"
    metadata = b"Metadata-Version: 2.1\nName: tinynative\nVersion: 1.0\n"
    return Package(
        "tinynative",
        "1.0",
        [
            Entry(f"{folder}/tinynative/__init__.py", text),
            Entry(f"{folder}/tinynative/_queue{_SUFFIX}", module, 0o755),
            Entry(f"{folder}/tinynative-1.0.dist-info/METADATA", metadata),
        ],
        depends=[f"python {_VERSION}.*", f"python_abi {_VERSION}.* *_{_TAG}"],
        build=f"py{_TAG[2:]}_0",
        subdir="linux-64",
    )


def _data() -> Package:
    """Noarch generic, old format: a non-ASCII name, spaces, modes that are to be normalised, an empty file."""
    return Package(
        "tinydata",
        "1.0",
        [
            Entry("share/tinydata/größe-日本.txt", "Größe\n".encode()),
            Entry("share/tinydata/with space.txt", b"space\n", 0o664),
            Entry("share/tinydata/private.txt", b"mode 0600\n", 0o600),
            Entry("share/tinydata/empty"),
        ],
        noarch="generic",
        legacy=True,
    )


def _prefix_text() -> Package:
    """The prefix in text: a script's first line and a configuration file."""
    script = f"#!{PLACEHOLDER}/bin/python\nimport sys\nprint('prefix-text', sys.prefix)\n"
    return Package(
        "prefix-text",
        "1.0",
        [
            Entry("bin/prefix-text", script.encode(), 0o755, prefix="text"),
            Entry("etc/prefix-text.conf", f"root={PLACEHOLDER}\nshare={PLACEHOLDER}/share\n".encode(), prefix="text"),
        ],
        depends=["python"],
        subdir="linux-64",
    )


def _prefix_binary() -> Package:
    """The prefix in binary data, as a compiler leaves it: ended by NUL, so that the rest must keep its place."""
    data = b"\x7fBIN\0" + PLACEHOLDER.encode() + b"/share/prefix-binary\0" + b"the next string\0" + bytes(range(256))
    return Package(
        "prefix-binary",
        "1.0",
        [Entry("lib/prefix-binary.bin", data, prefix="binary"), Entry("share/prefix-binary/found.txt", b"found\n")],
        subdir="linux-64",
        legacy=True,
    )


def _activation() -> Package:
    """Activation scripts and declared variables."""
    activate = (
        'export TINY_HOME="$CONDA_PREFIX/share/activation"\n'
        'export TINY_FLAGS="-O2 ${TINY_FLAGS:-}"\n'
        'export PATH="$CONDA_PREFIX/share/activation/bin:$PATH"\n'
        "tiny_unexported=1\n"
    )
    variables = {"TINY_LITERAL": 'a $HOME "quoted" `value`', "TINY_LEVEL": "3"}
    return Package(
        "activation",
        "1.0",
        [
            Entry("etc/conda/activate.d/activation.sh", activate.encode()),
            Entry("etc/conda/deactivate.d/activation.sh", b"unset TINY_HOME TINY_FLAGS\n"),
            Entry("etc/conda/env_vars.d/activation.json", json.dumps(variables).encode()),
            Entry("share/activation/bin/tiny-hello", b"#!/bin/sh\necho hello\n", 0o755),
        ],
        noarch="generic",
    )


def _clashes() -> list[Package]:
    """Two packages with one path of different and one of the same content."""
    return [
        Package(
            f"clash-{name}",
            "1.0",
            [
                Entry("share/clash/different.txt", f"from clash-{name}\n".encode()),
                Entry("share/clash/same.txt", b"the same\n"),
                Entry(f"share/clash/{name}.txt", f"only {name}\n".encode()),
            ],
            noarch="generic",
        )
        for name in ("a", "b")
    ]


def _links() -> Package:
    """Symbolic links: to a file, in a chain, to a folder, to nothing."""
    return Package(
        "links",
        "1.0",
        [
            Entry("lib/liblinks.so.1.0", b"not really a library\n", 0o755),
            Entry("lib/liblinks.so.1", link="liblinks.so.1.0"),
            Entry("lib/liblinks.so", link="liblinks.so.1"),
            Entry("share/links/folder/file.txt", b"in the folder\n"),
            Entry("share/links/to-folder", link="folder"),
            Entry("share/links/up", link="../../lib/liblinks.so"),
            Entry("share/links/dangling", link="no-such-file"),
        ],
        subdir="linux-64",
    )


def _long_paths() -> Package:
    """Names and paths that do not fit the fields of a plain tar header."""
    return Package(
        "long-paths",
        "1.0",
        [
            Entry(f"{LONG_FOLDER}/file.txt", b"deep\n"),
            Entry(f"share/long-paths/{LONG_NAME}", b"long name\n"),
            Entry("share/long-paths/link", link=f"{LONG_FOLDER.removeprefix('share/long-paths/')}/file.txt"),
        ],
        noarch="generic",
    )


def _post_link() -> Package:
    """A post-link script. No other package depends on it."""
    script = b'#!/bin/sh\necho linked > "$PREFIX/share/post-link-ran.txt"\n'
    return Package(
        "post-link",
        "1.0",
        [Entry("bin/.post-link-post-link.sh", script, 0o755), Entry("share/post-link/file.txt", b"file\n")],
        subdir="linux-64",
    )
