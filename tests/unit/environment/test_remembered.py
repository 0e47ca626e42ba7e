"""What is kept of files that were read: the same as reading them again, and never a credential."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.cache import Cache
from himl_container.environment import lock_reader, written
from himl_container.environment.declare import load_environment
from himl_container.environment.declared import pip_text
from himl_container.environment.lockfile import lock_text, read_lock
from himl_container.environment.model import EnvironmentSpec, Origin, PipRequirement
from himl_container.errors import InputError
from himl_container.settings import Settings

from . import locks

TEXT = """\
name: one
channels: [conda-forge]
nonsense: 1
dependencies:
  - python =3.11
  - "zlib >=1.2"
  - pip:
    - six >=1
    - -r more.txt
    - --find-links wheels
variables: {A: b}
"""

Load = Callable[..., EnvironmentSpec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "wheels").mkdir()
    write(tmp_path / "environment.yml", TEXT)
    write(tmp_path / "more.txt", "attrs\n-c bounds.txt\n")
    write(tmp_path / "bounds.txt", "attrs<99\n")
    cache = Cache(tmp_path / "cache")

    def call(environ: dict[str, str] | None = None, cached: bool = True, **settings: object) -> EnvironmentSpec:
        values = Settings(
            root=tmp_path,
            conda_files=(tmp_path / "environment.yml",),
            lock_file=tmp_path / "lock",
            cache_dir=cache.root,
            **settings,  # type: ignore[arg-type]
        )
        return load_environment(values, environ=environ or {}, cache=cache if cached else None)

    return call


def write(path: Path, text: str) -> None:
    """Write a file that was not changed just now."""
    path.write_text(text)
    os.utime(path, (1e9, 1e9))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After the call, reading an environment file fails the test."""

    def refuse(*_: object) -> EnvironmentSpec:
        raise AssertionError("read again")

    return lambda: monkeypatch.setattr(written, "read_written", refuse)


def everything(spec: EnvironmentSpec) -> dict[str, object]:
    """Return all fields, those too that do not count for equality."""
    return dataclasses.asdict(spec)


def test_what_was_read_comes_back_whole(load: Load, unread: Callable[[], None]) -> None:
    fresh = load(cached=False)
    first = load()
    unread()
    assert everything(load()) == everything(first) == everything(fresh)
    assert [path.name for path in fresh.files] == ["environment.yml", "more.txt", "bounds.txt"]
    assert fresh.warnings


@pytest.mark.parametrize(
    ("name", "text"),
    [("environment.yml", TEXT.replace("zlib", "xz")), ("more.txt", "numpy\n"), ("bounds.txt", "attrs<98\n")],
)
def test_another_content_is_read(load: Load, tmp_path: Path, name: str, text: str) -> None:
    before = load()
    write(tmp_path / name, text)
    after = load()
    assert after != before
    assert everything(after) == everything(load(cached=False))


def test_a_file_that_is_gone_is_missed(load: Load, tmp_path: Path) -> None:
    load()
    (tmp_path / "more.txt").unlink()
    with pytest.raises(InputError, match=r"more\.txt"):
        load()


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = written.read_written

    def reading(*arguments: object) -> EnvironmentSpec:
        spec = real(*arguments)  # type: ignore[arg-type]
        (tmp_path / "more.txt").write_text("numpy\n")
        return spec

    monkeypatch.setattr(written, "read_written", reading)
    load()
    monkeypatch.undo()
    assert [one.name for one in load().pip] == ["numpy", "six"]


def test_settings_are_added_each_time(load: Load, unread: Callable[[], None]) -> None:
    load()
    load(pip_index_url="https://first.example")
    unread()
    private = load(pip_extra_index_urls=("https://private.example",))
    assert private.indexes.private == ("https://private.example",)
    assert load(pip_index_url="https://other.example").indexes.index == "https://other.example"
    assert load(warnings=("careful",)).warnings[0] == "careful"


def test_the_files_own_index_comes_back_where_the_settings_name_none(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "more.txt", "--index-url https://files.example/simple\n")
    for _ in range(2):
        assert load().indexes.index == "https://files.example/simple"
        assert load(pip_index_url="https://mine.example").indexes.index == "https://mine.example"


@pytest.mark.parametrize(
    "line",
    [
        "--extra-index-url https://user:CANARY@h.example/simple",
        "--extra-index-url https://${SECRET}@h.example/simple",
        "--find-links https://h.example/x?sig=CANARY",
    ],
)
def test_no_credential_is_kept(load: Load, tmp_path: Path, line: str) -> None:
    write(tmp_path / "more.txt", line + "\n")
    for _ in range(2):
        spec = load({"SECRET": "CANARY"}, pip_extra_index_urls=("https://CANARY:x@h.example",))
        assert "CANARY" in repr(spec.indexes)
    kept = [path.read_text() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert "CANARY" not in "".join(kept)


def test_settings_with_credentials_do_not_keep_the_rest_from_being_kept(
    load: Load, tmp_path: Path, unread: Callable[[], None]
) -> None:
    settings = {"pip_index_url": "https://CANARY:x@h.example", "pip_extra_index_urls": ("https://y:CANARY@h.example",)}
    load(**settings)
    unread()
    assert load(**settings).indexes.index == settings["pip_index_url"]
    kept = [path.read_text() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert "CANARY" not in "".join(kept)


@pytest.mark.parametrize("damage", ["{}", "[]", "null", '{"files": {}, "spec": {"name": 1}}', "nonsense"])
def test_a_damaged_record_is_no_record(load: Load, tmp_path: Path, damage: str) -> None:
    fresh = load()
    (record,) = (tmp_path / "cache" / "memo" / "written").iterdir()
    record.write_text(damage)
    assert everything(load()) == everything(fresh)


def test_a_cache_that_cannot_be_written_is_none(load: Load, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert load().name == "one"


def test_a_lock_that_was_read_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "lock", Cache(tmp_path / "cache")
    lock = locks.lock()
    path.write_text(lock_text(lock))
    assert read_lock(path, cache) == lock
    monkeypatch.setattr(lock_reader, "read_lock_text", None)
    assert read_lock(path, cache) == lock
    (record,) = (tmp_path / "cache" / "memo" / "lock").iterdir()
    monkeypatch.undo()
    record.write_text('{"platform": "x"}')
    assert read_lock(path, cache) == lock


def test_a_damaged_lock_is_refused_each_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "lock", Cache(tmp_path / "cache")
    path.write_text(lock_text(locks.lock()).replace("linux-64", "../x"))
    for _ in range(2):
        with pytest.raises(InputError):
            read_lock(path, cache)


NAMES = st.from_regex(r"[a-z0-9]{1,3}(-[a-z0-9]{1,3})?", fullmatch=True)
BOUNDS = st.lists(st.from_regex(r"(==|>=|<=|<|>|!=|~=)[0-9]\.[0-9](\.\*|rc1|\.post2|\+l)?", fullmatch=True), max_size=3)


@given(NAMES, BOUNDS)
def test_a_plain_requirement_is_spelled_as_packaging_spells_it(name: str, bounds: list[str]) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    text = name + ",".join(bounds)
    try:
        wanted = str(Requirement(text))
    except InvalidRequirement:
        wanted = text
    assert pip_text(PipRequirement(text, name, Origin("x"))) == wanted


def test_a_known_environment_and_lock_are_compared_without_their_parsers(load: Load, tmp_path: Path) -> None:
    load()
    (tmp_path / "lock").write_text(lock_text(locks.lock()))
    read_lock(tmp_path / "lock", Cache(tmp_path / "cache"))
    code = (
        "import sys; from pathlib import Path; from himl_container.settings import Settings;"
        "from himl_container.cache import Cache; from himl_container.environment.declare import load_environment;"
        "from himl_container.environment.lock import compare; folder = Path(sys.argv[1]);"
        "cache = Cache(folder / 'cache');"
        "settings = Settings(folder, (folder / 'environment.yml',), folder / 'lock', cache.root);"
        "compare(load_environment(settings, cache=cache), settings.lock_file, settings, cache=cache);"
        "print(sorted({'yaml', 'rattler', 'packaging', 'conda_merge', 'tomllib', 'tomli'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
