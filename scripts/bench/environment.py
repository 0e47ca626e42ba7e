"""The benchmark's environment: about 150 Conda packages and 2.5 GB, sizes as uneven as in real ones, a few wheels.

Everything is generated, the same bytes each time: native libraries (half of their bytes do not compress), native Python
packages that bring their bytecode as Conda's do, pure Python packages that do not.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import marshal
import random
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from channel.package import EPOCH, Entry, Package, write_channel

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SMALL = "lib-042"
"""The small package that changes."""
SMALL_VERSIONS = tuple(f"1.{number}" for number in range(12))
"""Its versions: each change takes one that neither side has seen."""
MIDDLE = "lib-055"
"""A package of some size on which others depend, that changes too."""
MIDDLE_VERSIONS = tuple(f"1.{number}" for number in range(4))
_FIXED_SIZES = {SMALL: 300_000, MIDDLE: 20_000_000}
LARGE_IMPORT = "bigpy_00"
"""The package whose first import is timed."""

_VERSIONS = {SMALL: SMALL_VERSIONS, MIDDLE: MIDDLE_VERSIONS}
_LIBRARIES, _NATIVE, _PURE = 110, 25, 15
_WHEELS, _WHEELS_MEGABYTES = 8, 40
"""Wheels of an index, and what they take installed. A Dockerfile that installs them and the private one in one ``RUN``
pushes 44 MB when that changes, as in the environment in which the design was measured."""
_MEGABYTE = 1 << 20


class Packages(Sequence[Package]):
    """The packages, each made when it is asked for: all of them at once would not fit into memory.

    :param scale: factor on all sizes; 1 is 2.5 GB installed.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __len__(self) -> int:
        return _LIBRARIES + _NATIVE + _PURE + len(SMALL_VERSIONS) - 1 + len(MIDDLE_VERSIONS) - 1

    @overload
    def __getitem__(self, index: int) -> Package: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Package]: ...
    def __getitem__(self, index: int | slice) -> Package | Sequence[Package]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Package]:
        sizes = _sizes(_LIBRARIES, 1900 * self.scale)
        for number, size in enumerate(sizes):
            name = f"lib-{number:03}"
            fixed = _FIXED_SIZES.get(name)
            for version in _VERSIONS.get(name, ("1.0",)):
                yield _library(name, version, size if fixed is None else int(fixed * min(1, self.scale)))
        for number, size in enumerate(_sizes(_NATIVE, 560 * self.scale)):
            yield _python_package(f"bigpy-{number:02}", size, modules=150, noarch=False)
        for number in range(_PURE):
            yield _python_package(f"purepy-{number:02}", 0, modules=60, noarch=True)


def write_environment(folder: Path, scale: float) -> None:
    """Write the channel and the wheels (``channel``, ``wheels``) below ``folder``."""
    from channel.interpreter import python_packages
    from channel.samples import installed_package

    pip = installed_package("pip")
    assert pip is not None
    write_channel(_Joined([*python_packages(), pip], Packages(scale)), folder / "channel")
    wheels = folder / "wheels"
    wheels.mkdir()
    for number, size in enumerate(_sizes(_WHEELS, _WHEELS_MEGABYTES * scale)):
        write_wheel(wheels, f"wheel_{number}", "1.0", modules=20, data=size)
    write_wheel(wheels, "privatelib", "1.0", modules=30)


def names() -> list[str]:
    """The specs of the environment file, without the interpreter and the packages that change."""
    libraries = [f"lib-{number:03}" for number in range(_LIBRARIES)]
    return [
        *(name for name in libraries if name not in _VERSIONS),
        *(f"bigpy-{number:02}" for number in range(_NATIVE)),
        *(f"purepy-{number:02}" for number in range(_PURE)),
    ]


def write_wheel(folder: Path, name: str, version: str, modules: int, data: int = 0) -> Path:
    """Write a wheel whose bytes depend on its arguments alone.

    :param data: bytes of a file beside the modules, of which half do not compress.
    """
    files = {f"{name}/__init__.py": f"__version__ = {version!r}\n".encode()}
    files |= {f"{name}/m{index:03}.py": _source(f"{name}{version}", index) for index in range(modules)}
    if data:
        files[f"{name}/data.bin"] = _bytes(name, 0, data)
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    rows = [f"{path},sha256={_record_hash(content)},{len(content)}\n" for path, content in files.items()]
    files[f"{info}/RECORD"] = ("".join(rows) + f"{info}/RECORD,,\n").encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(zipfile.ZipInfo(member, (2000, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return path


class _Joined(Sequence[Package]):
    def __init__(self, *parts: Sequence[Package]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @overload
    def __getitem__(self, index: int) -> Package: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Package]: ...
    def __getitem__(self, index: int | slice) -> Package | Sequence[Package]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Package]:
        for part in self.parts:
            yield from part


def _sizes(count: int, total_megabytes: float) -> list[int]:
    """Sizes in bytes, a few large and many small, adding up to the total; in an order that mixes them."""
    chance = random.Random(count)
    raw = [chance.lognormvariate(0, 1.6) for _ in range(count)]
    factor = total_megabytes * _MEGABYTE / sum(raw)
    return [max(20_000, int(value * factor)) for value in raw]


def _library(name: str, version: str, size: int) -> Package:
    count = max(1, min(40, size // _MEGABYTE))
    entries = [Entry(f"lib/{name}/lib{index:02}.so.1", _bytes(name, index, size // count)) for index in range(count)]
    entries.append(Entry(f"include/{name}.h", f"#define VERSION {version!r}\n".encode()))
    return Package(name, version, entries, subdir="linux-64", build="h0_0")


def _python_package(name: str, size: int, *, modules: int, noarch: bool) -> Package:
    module = name.replace("-", "_")
    root = f"site-packages/{module}" if noarch else f"lib/python{PYTHON}/site-packages/{module}"
    imports = "".join(f"from {module} import m{index:03}\n" for index in range(modules))
    entries = [*_module(f"{root}/__init__.py", imports.encode(), compiled=not noarch)]
    for index in range(modules):
        entries += _module(f"{root}/m{index:03}.py", _source(name, index), compiled=not noarch)
    if size:
        entries.append(Entry(f"{root}/data.bin", _bytes(name, 0, size)))
    info = f"{root.rsplit('/', 1)[0]}/{module}-1.0.dist-info"
    entries.append(Entry(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()))
    entries.append(Entry(f"{info}/INSTALLER", b"conda\n"))
    entries.append(Entry(f"{info}/RECORD", f"{module}/__init__.py,,\n{info.rsplit('/', 1)[1]}/RECORD,,\n".encode()))
    return Package(
        name,
        "1.0",
        entries,
        depends=[f"python {PYTHON}.*", *([] if noarch else [MIDDLE])],
        noarch="python" if noarch else "",
        subdir="noarch" if noarch else "linux-64",
        build="pyh0_0" if noarch else f"py{PYTHON.replace('.', '')}_0",
    )


@functools.cache  # the channel's writer asks for each package once per subdir
def _module(path: str, source: bytes, *, compiled: bool) -> tuple[Entry, ...]:
    entries = [Entry(path, source)]
    if compiled:
        folder, _, name = path.rpartition("/")
        code = compile(source, path, "exec", dont_inherit=True)
        times = EPOCH.to_bytes(4, "little") + len(source).to_bytes(4, "little")
        data = importlib.util.MAGIC_NUMBER + bytes(4) + times + marshal.dumps(code)
        tag = sys.implementation.cache_tag
        entries.append(Entry(f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc", data))
    return tuple(entries)


def _source(name: str, index: int) -> bytes:
    """About 8 kB of Python with functions, a class and constants."""
    chance = random.Random(f"{name}/{index}")
    lines = [f'"""Module {index} of {name}."""', ""]
    for number in range(40):
        words = [f"value_{value}" for value in chance.sample(range(10_000), 4)]
        lines += [
            f"def function_{number}({words[0]}, {words[1]}=None):",
            f'    """Return {words[2]} of {words[3]}."""',
            f"    if {words[1]} is None:",
            f"        {words[1]} = {chance.random()!r}",
            f"    return [{words[0]} * item for item in range({chance.randrange(100)}) if item != {words[1]}]",
            "",
        ]
    return "\n".join(lines).encode()


def _bytes(name: str, index: int, size: int) -> bytes:
    """Bytes of which half do not compress, as in machine code."""
    chance = random.Random(f"{name}:{index}")
    block = chance.randbytes(32_768) + bytes(32_768)
    parts = [chance.randbytes(32_768) + block[32_768:] for _ in range(size // 65_536)]
    return b"".join([*parts, block])[:size]


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
