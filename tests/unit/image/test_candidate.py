"""The name of an image that is not tested yet: of one build alone, and gone when that is over, however it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from himl_container.cache import Cache
from himl_container.errors import EngineError
from himl_container.image.candidate import candidate_name
from himl_container.image.engine import Engine

FINGERPRINT = "ab" * 32


class Names:
    """A daemon that has names, and can be told to keep some."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.stuck: set[str] = set()

    def remove_image(self, reference: str) -> None:
        if reference in self.stuck:
            raise EngineError("a container uses the image")
        self.there.discard(reference)

    @property
    def engine(self) -> Engine:
        return cast("Engine", self)


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def notes(cache: Cache) -> list[Path]:
    return list((cache.root / "memo" / "candidates").glob("*"))


def killed(cache: Cache, fingerprint: str = FINGERPRINT) -> str:
    """Return the name of a build that was killed when it had used it."""
    script = (
        "import os, sys; from pathlib import Path; from himl_container.cache import Cache\n"
        "from himl_container.image.candidate import candidate_name\n"
        "with candidate_name(sys.argv[1], engine=None, cache=Cache(Path(sys.argv[2]))) as name:\n"
        "    print(name, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, fingerprint, cache.root], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    return done.stdout.strip()


def test_two_projects_with_equal_environments_have_names_of_their_own(
    names: Names, cache: Cache, tmp_path: Path
) -> None:
    other = Cache(tmp_path / "other")
    with candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as mine:
        names.there.add(mine)
        with candidate_name(FINGERPRINT, engine=names.engine, cache=other) as theirs:
            names.there.add(theirs)
            assert mine != theirs
        assert names.there == {mine}
    assert not names.there
    assert not notes(cache)
    assert not notes(other)


@pytest.mark.parametrize("reason", [EngineError("the test failed"), KeyboardInterrupt()])
def test_a_build_that_fails_or_is_interrupted_leaves_no_name(names: Names, cache: Cache, reason: BaseException) -> None:
    with pytest.raises(type(reason)), candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as name:
        names.there.add(name)
        raise reason
    assert not names.there
    assert not notes(cache)


def test_an_interrupt_while_the_name_is_removed_leaves_none(names: Names, cache: Cache) -> None:
    remove, asked = names.remove_image, []

    def interrupted(reference: str) -> None:
        asked.append(reference)
        if len(asked) == 1:
            raise KeyboardInterrupt
        remove(reference)

    names.remove_image = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as name:
        names.there.add(name)
    assert asked == [name, name]
    assert not names.there
    assert not notes(cache)


def test_what_a_killed_build_left_is_kept_while_its_layers_may_be_of_use_and_then_removed(
    names: Names, cache: Cache
) -> None:
    left, elsewhere = killed(cache), killed(cache, "cd" * 32)
    names.there = {left, elsewhere}
    with candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as name:
        names.there.add(name)
        assert left in names.there
        assert name != left
    assert names.there == {elsewhere}, "what another build may be using was removed"


def test_a_name_that_cannot_be_removed_is_no_error_and_is_removed_by_the_next_build(names: Names, cache: Cache) -> None:
    with candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as first:
        names.there.add(first)
        names.stuck.add(first)
    assert names.there == {first}
    names.stuck.clear()
    with candidate_name(FINGERPRINT, engine=names.engine, cache=cache):
        pass
    assert not names.there
    assert not notes(cache)


@pytest.mark.parametrize("text", ["", "{", "{}", "7", '["ubuntu:24.04", 5, null, ["x"]]'])
def test_a_damaged_note_removes_nothing_of_others(names: Names, cache: Cache, text: str) -> None:
    folder = cache.folder("memo", "candidates")
    (folder / f"{FINGERPRINT[:32]}.json").write_text(text, encoding="utf-8")
    names.there = {"ubuntu:24.04"}
    with candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as name:
        names.there.add(name)
    assert names.there == {"ubuntu:24.04"}
    assert not notes(cache)


def test_the_name_is_one_that_docker_takes(names: Names, cache: Cache) -> None:
    with candidate_name(FINGERPRINT, engine=names.engine, cache=cache) as name:
        repository, _, tag = name.partition(":")
    assert repository == "himl-candidate"
    assert len(tag) <= 128
    assert tag.replace("-", "").isalnum()
