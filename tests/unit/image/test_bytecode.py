from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.errors import BuildError
from himl_container.image import bytecode
from himl_container.image.bytecode import Compiler, DamagedBytecodeError, Module
from himl_container.image.tar import Entry, write_tar

# Sources whose bytecode would differ from run to run without care, and every kind of constant.
TRICKY = {
    "sets": "def f(x):\n    return x in {None, 'a', 1, (None, 2), 'bcd', b'e', ...} or x in {'p q', 'r s', 't u'}\n",
    "large set": f"def f(x): return x in {{None, ..., {', '.join(repr(f'string {n}') for n in range(3000))}}}\n",
    "characters": "print(']', '.', ' ', 'ä', '1', 'x', f'[{1}]', b'.', b'')\n",
    "shared": "a = ('x y', 'x y', 1.5, 1.5, 10**20, 3j)\ndef f(*, k=('x y',)): return lambda: (k, a, 1.5)\n",
    "nested": "class C:\n    x: int = 1\n    def f(self, y):\n        def g():\n            nonlocal y\n"
    "            return __class__, y\n        return [z for z in g()]\n",
    "handlers": "async def f():\n    try:\n        async with a as b: yield await b\n    except ValueError: pass\n"
    "    finally: c()\n",
    "docs": '"""Module."""\ndef f():\n    """Function."""\n',
    "empty": "",
}


def pythons() -> list[Path]:
    """This interpreter's prefix and those of other supported versions that are on this machine."""
    roots = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    others = {
        ".".join(p.name.split(".")[:2]): p for p in sorted(roots.glob("3.1[0-2].*")) if (p / "bin/python").exists()
    }
    others[f"3.{sys.version_info[1]}"] = Path(sys.base_prefix)
    return list(others.values())


@pytest.fixture(params=pythons(), ids=lambda prefix: prefix.name)
def python(request: pytest.FixtureRequest) -> Path:
    prefix: Path = request.param
    if not (prefix / "bin" / "python").exists():
        pytest.skip(f"{prefix} has no bin/python")
    return prefix


@pytest.fixture
def modules(tmp_path: Path) -> list[Module]:
    folder = tmp_path / "sources"
    folder.mkdir()
    found = []
    for name, text in TRICKY.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        found.append(Module(f"lib/{name}.py", folder / f"{name}.py"))
    stdlib = Path(sysconfig.get_path("stdlib"))
    return found + [Module(f"lib/{p.name}", p) for p in sorted(stdlib.glob("[a-h]*.py"))]


def compiled(entries: Sequence[Entry]) -> dict[str, bytes]:
    found = {}
    for entry in entries:
        assert entry.source is not None
        write_tar([entry], io.BytesIO())  # checks the hash
        found[entry.path] = entry.source.read_bytes()[entry.offset : entry.offset + entry.size]
    return found


def test_the_same_bytes_in_any_order_and_division(python: Path, modules: list[Module], tmp_path: Path) -> None:
    with Compiler(python, "p", cache=Cache(tmp_path / "one"), workers=1) as compiler:
        expected = compiled(compiler.compile("all", modules))
    assert len(expected) > 50

    shuffled = list(modules)
    random.Random(1).shuffle(shuffled)
    found: dict[str, bytes] = {}
    with Compiler(python, "p", cache=Cache(tmp_path / "two"), workers=2) as compiler:
        for start in range(0, len(shuffled), 7):
            found |= compiled(compiler.compile(f"part {start}", shuffled[start : start + 7]))

    assert found == expected


def test_the_bytes_do_not_depend_on_what_else_the_process_holds(python: Path, modules: list[Module]) -> None:
    """Marshal marks what is referred to more than once; here, another copy of all code keeps every name in use."""
    script = Path(bytecode.__file__).with_name("_compile_worker.py")
    program = (
        "import hashlib, runpy, sys\n"
        "worker, held = sys.argv[1], sys.argv[2] == 'held'\n"
        "compiled = runpy.run_path(worker)['compiled']\n"
        "sources = [open(path, 'rb').read() for path in sys.argv[3:]]\n"
        "kept = [compile(source, 'x', 'exec', dont_inherit=True) for source in sources if held]\n"
        "print(hashlib.sha256(b''.join(compiled(source, 'x') for source in sources)).hexdigest())\n"
    )
    paths = [module.source for module in modules[: len(TRICKY)]]
    found = {
        subprocess.run(
            [python / "bin/python", "-c", program, script, state, *paths],
            env={"PYTHONHASHSEED": "0"},
            capture_output=True,
            check=True,
        ).stdout
        for state in ("held", "free")
    }

    assert len(found) == 1


def test_the_code_is_what_the_interpreter_would_make(modules: list[Module], tmp_path: Path) -> None:
    with Compiler(Path(sys.base_prefix), "p", cache=Cache(tmp_path)) as compiler:
        found = compiled(compiler.compile("all", modules))

    for module in modules:
        path = f"/opt/himl/{module.path}"
        source = module.source.read_bytes()
        name = Path(importlib.util.cache_from_source(path)).relative_to("/").as_posix()
        if name not in found:
            with pytest.raises(SyntaxError):
                compile(source, path, "exec", dont_inherit=True)
            continue
        data = found[name]
        assert data[:4] == importlib.util.MAGIC_NUMBER
        assert data[4:8] == b"\1\0\0\0", "hash-based and unchecked (PEP 552)"
        assert data[8:16] == importlib.util.source_hash(source)
        code = marshal.loads(data[16:])
        assert code == compile(source, path, "exec", dont_inherit=True, optimize=0)
        assert code.co_filename == path


def test_the_interpreter_imports_it_without_looking_at_the_source(python: Path, tmp_path: Path) -> None:
    source = tmp_path / "answer.py"
    source.write_text("VALUE = 42\nKNOWN = 'x y' in {None, 'x y', 'z'}\n")
    with Compiler(python, "p", cache=Cache(tmp_path / "cache")) as compiler:
        (entry,) = compiler.compile("all", [Module("lib/answer.py", source)])
    (data,) = compiled([entry]).values()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / Path(entry.path).name).write_bytes(data)
    source.write_text("VALUE = 'the source was read'\n")

    code = "import answer; print(answer.VALUE, answer.KNOWN, answer.__cached__.endswith('.pyc'))"
    done = subprocess.run([python / "bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout == "42 True True\n"


BROKEN = [b"def f(:\n", b"\xff\xfe", b"x = '\0'", b"# coding: no-such\n", b"(" * 5000, b"-" * 300_000 + b"1"]


@pytest.mark.parametrize("source", BROKEN)
def test_what_does_not_compile_is_left_alone(source: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_bytes(source)
    (tmp_path / "good.py").write_bytes(b"x = 1\n")
    modules = [Module("lib/bad.py", tmp_path / "bad.py"), Module("lib/good.py", tmp_path / "good.py")]

    with Compiler(Path(sys.base_prefix), "p", cache=Cache(tmp_path / "cache")) as compiler:
        entries = compiler.compile("all", modules)

    assert [Path(entry.path).name.partition(".")[0] for entry in entries] == ["good"]


def shipped(folder: Path, module: Module, *, time: int = 1000, mode: str = "TIMESTAMP") -> Module:
    """The module with a ``.pyc`` as a package brings it: its code says so, whatever the source is."""
    code = compile("FROM = 'the package'", "/build/place/x.py", "exec")
    source = module.source.read_bytes()
    header = importlib.util.MAGIC_NUMBER + (0).to_bytes(4, "little") + time.to_bytes(4, "little")
    header += len(source).to_bytes(4, "little")
    if mode != "TIMESTAMP":
        flags = {"CHECKED_HASH": 3, "UNCHECKED_HASH": 1}[mode]
        header = importlib.util.MAGIC_NUMBER + flags.to_bytes(4, "little") + importlib.util.source_hash(source)
    data = header + marshal.dumps(code)
    path = folder / "shipped.pyc"
    path.write_bytes(data)
    return Module(module.path, module.source, path, hashlib.sha256(data).hexdigest(), 1000)


@pytest.fixture
def module(tmp_path: Path) -> Module:
    (tmp_path / "a.py").write_text("FROM = 'the source'\n")
    return Module("lib/a.py", tmp_path / "a.py")


def value(module: Module, cache: Path) -> str:
    """Compile one module, and return what it says of where it comes from."""
    with Compiler(Path(sys.base_prefix), "p", cache=Cache(cache)) as compiler:
        (data,) = compiled(compiler.compile("a", [module])).values()
    assert data[4:16] == b"\1\0\0\0" + importlib.util.source_hash(module.source.read_bytes())
    names: dict[str, str] = {}
    exec(marshal.loads(data[16:]), names)
    return names["FROM"]


@pytest.mark.parametrize("mode", ["TIMESTAMP", "CHECKED_HASH", "UNCHECKED_HASH"])
def test_bytecode_that_a_package_brings_is_taken_where_python_would_take_it(
    module: Module, tmp_path: Path, mode: str
) -> None:
    brought = shipped(tmp_path, module, mode=mode)
    assert value(brought, tmp_path / "cache") == "the package"

    module.source.write_text("FROM = 'the source', longer\n".replace(", longer", "  # longer"))
    assert value(brought, tmp_path / "cache 2") == "the source", "of another source"


def test_bytecode_of_another_time_or_another_python_is_not_taken(module: Module, tmp_path: Path) -> None:
    assert value(shipped(tmp_path, module, time=1001), tmp_path / "cache") == "the source"

    brought = shipped(tmp_path, module)
    assert brought.shipped is not None
    for number, data in enumerate(
        [b"", b"\0\0\r\n" + brought.shipped.read_bytes()[4:], brought.shipped.read_bytes()[:9]]
    ):
        brought.shipped.write_bytes(data)
        other = Module(brought.path, brought.source, brought.shipped, hashlib.sha256(data).hexdigest(), 1000)
        assert value(other, tmp_path / f"cache {number}") == "the source"


def test_bytecode_that_was_changed_in_a_shared_cache(module: Module, tmp_path: Path) -> None:
    brought = shipped(tmp_path, module)
    assert brought.shipped is not None
    brought.shipped.write_bytes(brought.shipped.read_bytes() + b"!")

    with Compiler(Path(sys.base_prefix), "p", cache=Cache(tmp_path)) as compiler, pytest.raises(DamagedBytecodeError):
        compiler.compile("a", [brought])


def test_odd_file_names(tmp_path: Path) -> None:
    names = ["with space.py", "new\nline.py", "größe.py", "quote'\".py"]
    for name in names:
        (tmp_path / name).write_text("x = 1\n")

    with Compiler(Path(sys.base_prefix), "p", cache=Cache(tmp_path / "cache")) as compiler:
        entries = compiler.compile("all", [Module(f"lib/{name}", tmp_path / name) for name in names])

    assert {Path(e.path).name.rpartition(".cpython")[0] + ".py" for e in entries} == set(names)


def test_bytecode_is_kept_and_a_damaged_pack_is_made_again(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    modules = [Module("lib/a.py", source)]
    with Compiler(Path(sys.base_prefix), "p", cache=Cache(tmp_path / "cache")) as compiler:
        (first,) = compiler.compile("a", modules)
        source.unlink()
        assert compiler.compile("a", modules) == [first]

        source.write_text("x = 1\n")
        assert first.source is not None
        for damage in (b"", b"{}", b"[1]\n", first.source.read_bytes()[:-1]):
            first.source.write_bytes(damage)
            assert compiled(compiler.compile("a", modules)).keys() == {first.path}


def test_another_interpreter_has_its_own_bytecode(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    places = []
    for identity in ("one", "two"):
        with Compiler(Path(sys.base_prefix), identity, cache=Cache(tmp_path / "cache")) as compiler:
            places += [entry.source for entry in compiler.compile("a", [Module("lib/a.py", source)])]

    assert places[0] != places[1]


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 3\n", "#!/no/such/interpreter\n", "not a program"])
def test_an_interpreter_that_does_not_run(program: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(program)
    (tmp_path / "bin/python").chmod(0o755)
    (tmp_path / "a.py").touch()

    with Compiler(tmp_path, "p", cache=Cache(tmp_path / "cache")) as compiler, pytest.raises(BuildError) as raised:
        compiler.compile("a", [Module("lib/a.py", tmp_path / "a.py")])

    assert "does not run on this machine" in str(raised.value)


def test_a_source_that_crashes_the_compiler_costs_no_other_its_bytecode(tmp_path: Path) -> None:
    """The crash is real (SIGABRT of the worker), its cause is not: a Python of that kind cannot be had on purpose."""
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin/python"
    hook = (
        "import builtins, os\nold = builtins.compile\n"
        "def new(source, *a, **k):\n    if b'CRASH' in source: os.abort()\n    return old(source, *a, **k)\n"
        "builtins.compile = new\n"
    )
    run = (
        "import runpy, sys\nsys.argv = sys.argv[1:]\nsys.path.insert(0, 'x')\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    (tmp_path / "start.py").write_text(hook + run)
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "start.py"} "$3"\n')
    wrapper.chmod(0o755)
    modules = []
    for number in range(90):
        path = tmp_path / f"m{number}.py"
        path.write_text("x = 'CRASH'\n" if number in (3, 50) else f"x = {number}\n")
        modules.append(Module(f"lib/m{number}.py", path))

    with Compiler(tmp_path, "p", cache=Cache(tmp_path / "cache")) as compiler:
        found = compiler.compile("all", modules)

    assert len(found) == 88
    assert not [e for e in found if "/m3." in e.path or "/m50." in e.path]
