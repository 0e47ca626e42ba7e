"""The smoke test and the capture of activation on real images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import elf_files
import pytest
from small_images import SITE, ImageMaker, channel_lock, small_settings

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.errors import SmokeTestError
from himl_container.image.activation import capture_activation
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.model import PREFIX, Layer
from himl_container.image.smoke import smoke_test
from himl_container.progress import SilentReporter

pytestmark = pytest.mark.docker

TAG = f"himl-test-smoke:{os.getpid()}"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory, base_image: str, warm_cache_dir: Path) -> Iterator[ImageMaker]:
    folder = tmp_path_factory.mktemp("smoke")
    engine = DockerEngine.connect()
    yield ImageMaker(engine, Cache(warm_cache_dir), small_settings(folder, warm_cache_dir), base_image)
    engine.remove_image(TAG)


@pytest.fixture(scope="module")
def lock(channel: Path, base_image: str) -> Lock:
    return channel_lock(channel, ["python", "activation", "tinylib", "tinynative", "tinytool"], base=base_image)


@pytest.fixture(scope="module")
def layers(maker: ImageMaker, lock: Lock) -> tuple[Layer, ...]:
    return maker.layers(lock)


def distribution(name: str, *modules: str, requires: str = "") -> dict[str, bytes | str]:
    """Return the metadata of a distribution that says that it has these files."""
    info = f"{SITE}/{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    return {
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/RECORD": "".join(f"{module},,\n" for module in modules),
    }


def test_a_sound_image_passes_once_and_is_remembered(
    maker: ImageMaker, lock: Lock, layers: tuple[Layer, ...], tmp_path: Path
) -> None:
    maker.load(TAG, layers, plan=maker.plan(lock, environment={"GREETING": "hi $HOME"}))
    settings = small_settings(
        tmp_path, maker.cache.root, test=("test \"$GREETING\" = 'hi $HOME'", "tinytool", "! python -c 'import nope'")
    )
    first, again = (
        smoke_test(TAG, lock=lock, settings=settings, engine=maker.engine, cache=maker.cache, reporter=SilentReporter())
        for _ in range(2)
    )
    names = [check.name for check in first.checks]
    assert names[:3] == ["interpreter", "glibc", "modules"]
    assert {"import tinylib", "import tinytool", "requirements", "libraries", "command: tinytool"} <= set(names)
    assert all(check.ok for check in first.checks)
    assert (first.remembered, again.remembered) == (False, True)


def test_a_broken_image_is_told_check_by_check(
    maker: ImageMaker, lock: Lock, layers: tuple[Layer, ...], tmp_path: Path
) -> None:
    broken = {
        **distribution("gone", "gone/__init__.py"),
        **distribution("needy", "needy.py", requires="tinylib>=99"),
        f"{SITE}/needy.py": "",
        f"{SITE}/crasher.py": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        **distribution("viewer", "viewer/__init__.py", "viewer/_gl.so"),
        f"{SITE}/viewer/__init__.py": "import viewer._gl",
        f"{SITE}/viewer/_gl.so": elf_files.shared_library(["libNoSuchGL.so.1", "libc.so.6"]),
        **distribution("careful", "careful/__init__.py", "careful/_gl.so"),
        f"{SITE}/careful/__init__.py": "",
        f"{SITE}/careful/_gl.so": elf_files.shared_library(["libOptional.so.1", "libcuda.so.1"]),
    }
    maker.load(TAG, (*layers, maker.extra_layer(broken)), plan=maker.plan(lock))
    settings = small_settings(
        tmp_path, maker.cache.root, glibc="2.99", cuda="12.4", test=("echo reason; exit 7",), test_imports=("crasher",)
    )
    with pytest.raises(SmokeTestError) as caught:
        smoke_test(TAG, lock=lock, settings=settings, engine=maker.engine, cache=maker.cache, reporter=SilentReporter())
    first, _, details = caught.value.what.partition("\n")
    failed = "glibc, modules, import crasher, requirements, libraries, cuda, command: echo reason; exit 7"
    assert first == f"the image failed its tests: {failed}"
    for text in (
        "cannot be found: gone",
        "needy 1.0 requires tinylib>=99, but 2.0 is installed",
        "the interpreter crashed: SIGSEGV",
        "libNoSuchGL.so.1 is missing, for viewer",
        "libOptional.so.1 is missing, but careful can do without",
        "exit code 7\nreason",
    ):
        assert text in details
    assert "libcuda" not in details.replace("libcudart", "")


def test_an_image_whose_layers_are_not_in_the_store_is_asked_itself(
    maker: ImageMaker, lock: Lock, layers: tuple[Layer, ...], tmp_path: Path
) -> None:
    files = {f"{PREFIX}/bin/tool": elf_files.shared_library(["libNoSuch.so.1"], program=True)}
    maker.load(TAG, (*layers, maker.extra_layer(files)), plan=maker.plan(lock))
    empty = tmp_path / "empty-cache"
    with pytest.raises(SmokeTestError, match=f"libNoSuch.so.1 is missing, for {PREFIX}/bin/tool"):
        smoke_test(
            TAG,
            lock=lock,
            settings=small_settings(tmp_path, empty),
            engine=maker.engine,
            cache=Cache(empty),
            reporter=SilentReporter(),
        )


def test_an_image_without_an_interpreter(maker: ImageMaker, lock: Lock, tmp_path: Path) -> None:
    with pytest.raises(SmokeTestError, match="bin/python cannot be started"):
        smoke_test(
            maker.base,
            lock=lock,
            settings=small_settings(tmp_path, maker.cache.root),
            engine=maker.engine,
            cache=maker.cache,
            reporter=SilentReporter(),
        )


def test_activation_is_captured_and_holds_in_the_image(
    maker: ImageMaker, lock: Lock, layers: tuple[Layer, ...], tmp_path: Path
) -> None:
    plan = maker.plan(lock)
    maker.load(TAG, layers, plan=plan)
    found = capture_activation(
        TAG, layers=layers, engine=maker.engine, cache=Cache(tmp_path), reporter=SilentReporter(), plan=plan
    )
    assert found["TINY_HOME"] == f"{PREFIX}/share/activation"
    assert found["PATH"] == f"{PREFIX}/share/activation/bin:${{PATH}}"
    assert found["TINY_LITERAL"] == 'a $HOME "quoted" `value`'
    maker.load(TAG, layers, plan=plan, activation=found)
    result = maker.engine.run(TAG, ["/bin/sh", "-c", 'echo "$TINY_LITERAL $PATH"'])
    assert result.output.decode().startswith(
        f'a $HOME "quoted" `value` {PREFIX}/share/activation/bin:{PREFIX}/bin:/usr/local/sbin'
    )
