"""A second image with a small change: what is imported again, and that a broken dependency is caught."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import kit
import pytest
from assembly import locked
from channel.package import Entry, Package, write_channel
from small_images import ImageMaker, channel_lock, small_settings

from himl_container.cache import Cache
from himl_container.errors import SmokeTestError
from himl_container.image.clobber import package_paths
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.model import PREFIX
from himl_container.image.smoke import SmokeReport, smoke_test
from himl_container.progress import SilentReporter

pytestmark = pytest.mark.docker

TAG = f"himl-test-smoke-memory:{os.getpid()}"

# Reads what it declares, and what it finds; the second module starts a program, if there is one.
READER = f"""
assert open("{PREFIX}/share/declared/value").read() == "good"
assert open("{PREFIX}/share/found/value").read() == "good"
"""
STARTER = """
import subprocess
assert subprocess.check_output(["found-program"]) == b"good"
"""

Test = Callable[..., SmokeReport]


def package(name: str, path: str, text: str, *, mode: int = 0o644) -> Package:
    return Package(name, "1.0", [Entry(path, text.encode(), mode)], noarch="generic")


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


@pytest.fixture
def tested(channel: Path, base_image: str, warm_cache_dir: Path, tmp_path: Path) -> Iterator[Test]:
    """Make and test an image of two modules and the packages that they use, with these contents."""
    engine = DockerEngine.connect()
    cache = Cache(warm_cache_dir)

    def test(*, declared: str = "good", found: str = "good", program: str = "good", unrelated: str = "") -> SmokeReport:
        folder = tmp_path / f"{declared}-{found}-{program}-{unrelated}"
        reader = [Entry("site-packages/reader.py", READER.encode())]
        starter = [Entry("site-packages/starter.py", STARTER.encode())]
        packages = [
            Package("reader", "1.0", reader, depends=["python", "declared"], noarch="python"),
            Package("starter", "1.0", starter, depends=["python"], noarch="python"),
            package("declared", "share/declared/value", declared),
            package("found", "share/found/value", found),
            package("found-program", "bin/found-program", f"#!/bin/sh\nprintf {program}\n", mode=0o755),
            package("unrelated", "share/unrelated/value", unrelated),
        ]
        if not folder.exists():
            write_channel(packages, folder)
        own = locked(folder, *(one.name for one in packages))
        own = tuple(
            replace(one, url=f"{folder.as_uri()}/noarch/{one.filename}", channel=folder.as_uri()) for one in own
        )
        lock = channel_lock(channel, ["python"], base=base_image)
        lock = replace(
            lock,
            conda=(*lock.conda, *own),
            declared=replace(lock.declared, conda=("python", "reader", "starter", "unrelated")),
        )
        settings = small_settings(tmp_path, warm_cache_dir, test_imports=("json",))
        package_paths(lock, cache=cache, settings=settings, reporter=SilentReporter())  # as planning an image does
        maker = ImageMaker(engine, cache, settings, base_image)
        maker.load(TAG, maker.layers(lock), plan=maker.plan(lock))
        return smoke_test(TAG, lock=lock, settings=settings, engine=engine, cache=cache, reporter=SilentReporter())

    yield test
    engine.remove_image(TAG)


def test_only_what_a_change_can_break_is_imported_again(tested: Test) -> None:
    first = tested()
    assert first.imports == (3, 0)
    second = tested(unrelated="changed")
    assert (second.imports, second.remembered) == ((0, 3), False)
    assert [check.name for check in second.checks] == [check.name for check in first.checks]
    with pytest.raises(SmokeTestError, match="failed its tests: import reader\n"):
        tested(declared="bad")
    with pytest.raises(SmokeTestError, match="failed its tests: import reader\n"):  # a failure is not remembered
        tested(declared="bad")
    with pytest.raises(SmokeTestError, match="failed its tests: import reader\n"):
        tested(found="bad")
    with pytest.raises(SmokeTestError, match="failed its tests: import starter\n"):
        tested(program="bad")
    assert tested(unrelated="again").imports == (0, 3)


def test_a_build_that_fails_its_test_says_how_to_accept_it_and_where_the_image_is(
    run_cli: kit.Cli, project: kit.ProjectFolder, image_name: str
) -> None:
    project.environment("python =3.11", "tinylib")
    done = run_cli("build", environ={"HIML_CONTAINER_TEST": "exit 3"}, expect=None)
    assert done.returncode != 0
    assert 'test-allow = ["command: exit 3"]' in done.stderr
    assert f"docker run --rm -it {image_name}:failed-" in done.stderr
