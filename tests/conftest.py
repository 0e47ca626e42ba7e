"""Fixtures for all tests. What they do is in :mod:`kit`, so that it can be used without a fixture too."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

import kit
import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("emulator_fixtures", "example_folders", "job_image", "torch_image")


# Chosen here because hypothesis itself chooses by a variable (CI): the same examples everywhere, and no example fails
# because the machine had something else to do. Other examples: --hypothesis-profile=default.
settings.register_profile(
    "same-everywhere",
    settings.get_profile("default"),
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same-everywhere")


def pytest_configure() -> None:
    """Let processes that tests start hear Ctrl-C, also where the test run itself is in the background.

    A shell that starts something in the background has it ignore these signals, and whoever it starts as well; one
    that has a handler passes on none (POSIX, "Signals and Error Handling" and ``exec``).
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _unheard)


def _unheard(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without an engine, a Docker test fails where everything has to be there (CI), and is skipped elsewhere."""
    if item.get_closest_marker("docker") is not None and kit.engine_problem():
        kit.lacking(kit.engine_problem())
    if item.get_closest_marker("network") is not None and os.environ.get("HIML_TEST_OFFLINE"):
        pytest.skip("HIML_TEST_OFFLINE is set")


_LIBRARIES = ("azureml", "azure", "msrest", "urllib3", "adal-python", "msal")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Put back what a command or hi-ml's functions do to the logs of other libraries: a later test may read them."""
    before = {name: logging.getLogger(name).level for name in _LIBRARIES}
    try:
        return (yield)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def channel() -> Path:
    """The folder of a Conda channel made on this machine; ``scripts/channel/samples.py`` says what it has."""
    from offline_kit import kit_channel

    return kit_channel()


@pytest.fixture(scope="session")
def base_image() -> str:
    """The kit's base image: a minimal Debian in the daemon, without any Python."""
    from offline_kit import kit_base_image

    return kit_base_image()


@pytest.fixture(scope="session")
def warm_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all tests of the session share; for tests that are not about the cache."""
    return tmp_path_factory.mktemp("warm-cache")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """An empty cache. A module of tests that may share one overrides this with ``warm_cache_dir``."""
    return tmp_path / "cache"


@pytest.fixture
def project(tmp_path: Path) -> kit.ProjectFolder:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return kit.ProjectFolder(folder)


@pytest.fixture
def image_name() -> Iterator[str]:
    """A repository name of this test alone; its images are removed afterwards."""
    name = f"himl-test-{uuid.uuid4().hex[:12]}"
    yield name
    if not kit.engine_problem():
        kit.remove_images(name)


@pytest.fixture
def run_cli(
    request: pytest.FixtureRequest, channel: Path, cache_dir: Path, project: kit.ProjectFolder, image_name: str
) -> kit.Cli:
    """``himl-container`` in the project folder, with the made channel as conda-forge, an own cache and image name.

    A test marked ``docker`` gets the kit's base image too.
    """
    variables = {
        "HIML_CONTAINER_CACHE_DIR": str(cache_dir),
        "HIML_CONTAINER_CHANNEL_MIRRORS": f"conda-forge={channel.as_uri()}",
        "HIML_CONTAINER_IMAGE_NAME": image_name,
    }
    if request.node.get_closest_marker("docker") is not None:
        variables["HIML_CONTAINER_BASE_IMAGE"] = request.getfixturevalue("base_image")
    return kit.Cli(project.path, kit.clean_environ(**variables))
