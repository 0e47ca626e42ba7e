"""What activation sets: the real script, run by this machine's shell in place of a container's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from himl_container.cache import Cache
from himl_container.errors import BuildError
from himl_container.image.activation import capture_activation, find_files, known_activation
from himl_container.image.engine import ContainerResult
from himl_container.image.model import Layer
from himl_container.progress import SilentReporter
from image import plans

FOLDER = "/opt/himl/etc/conda"
PATH = "/opt/himl/bin:/usr/bin:/bin"


class ShellEngine:
    """Runs the shell script of a container here; scripts of the layers lie below a folder."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.root = root
        self.environ = {"PATH": PATH, "CONDA_PREFIX": "/opt/himl", **environ}
        self.runs = 0

    def run(self, image: str, command: list[str], *, entrypoint: list[str], **options: Any) -> ContainerResult:
        self.runs += 1
        words = [str(self.root) + word if word.startswith(FOLDER) else word for word in [*entrypoint, *command]]
        done = subprocess.run(words, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return ContainerResult(done.returncode, done.stdout)


class Warnings(SilentReporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def layer_of(tmp_path: Path, scripts: dict[str, str], variables: dict[str, dict[str, str]] | None = None) -> Layer:
    """Return a layer with activation files, which lie in ``tmp_path / "root"`` too."""
    files: dict[str, bytes | str] = {f"{FOLDER}/activate.d/{name}": text for name, text in scripts.items()}
    files |= {f"{FOLDER}/env_vars.d/{name}": json.dumps(value) for name, value in (variables or {}).items()}
    for path, text in files.items():
        target = tmp_path / "root" / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(str(text))
    return plans.stored_layer(Cache(tmp_path / "cache"), "conda:x", {**files, "/opt/himl/bin/x": "x"})


def capture(tmp_path: Path, layer: Layer, engine: ShellEngine, **options: Any) -> dict[str, str]:
    cache = Cache(tmp_path / "cache")
    reporter = options.pop("reporter", SilentReporter())
    return dict(
        capture_activation("x", layers=[layer], engine=engine, cache=cache, reporter=reporter, **options)  # type: ignore[arg-type]
    )


def test_variables_come_first_then_scripts_in_the_order_of_their_names(tmp_path: Path) -> None:
    layer = layer_of(
        tmp_path,
        {
            "b.sh": 'export ORDER="${ORDER}b"; export SEEN="$FROM_JSON"',
            "a.sh": "export ORDER=a",
            "c.fish": "set -x ORDER wrong",
        },
        {"1.json": {"FROM_JSON": "one", "TWICE": "1"}, "2.json": {"TWICE": "2"}},
    )
    found = capture(tmp_path, layer, ShellEngine(tmp_path / "root"))
    assert found == {"FROM_JSON": "one", "ORDER": "ab", "SEEN": "one", "TWICE": "2"}


def test_values_are_kept_exactly(tmp_path: Path) -> None:
    values = {
        "QUOTES": """it's "so" `id` $(id) $HOME \\""",
        "EMPTY": "",
        "SPACE": "  a  ",
        "UNI": "é€🐍",
        "EQ": "a=b=c",
    }
    layer = layer_of(tmp_path, {}, {"x.json": values})
    assert capture(tmp_path, layer, ShellEngine(tmp_path / "root")) == values


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("export PATH=/a:$PATH", "/a:${PATH}"),
        ("export PATH=$PATH:/z", "${PATH}:/z"),
        ("export PATH=/opt/himl/bin:/only", "/opt/himl/bin:/only"),
        ("export PATH=/only", "/only:${PATH}"),
    ],
)
def test_the_path_is_kept_relative_to_what_it_was(tmp_path: Path, script: str, path: str) -> None:
    layer = layer_of(tmp_path, {"x.sh": script})
    assert capture(tmp_path, layer, ShellEngine(tmp_path / "root")) == {"PATH": path}


def test_what_the_user_declares_is_not_overridden_by_a_packages_variables(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, {}, {"x.json": {"MINE": "package", "OTHER": "package"}})
    engine = ShellEngine(tmp_path / "root", MINE="user")
    found = capture(tmp_path, layer, engine, plan=plans.plan(environment=[("MINE", "user")]))
    assert found == {"OTHER": "package"}


def test_what_an_image_cannot_hold_is_warned_of(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, {"x.sh": 'export LINES2="a\nb"; unset GONE; export FINE=1; export PWD=/x SHLVL=7'})
    reporter = Warnings()
    found = capture(tmp_path, layer, ShellEngine(tmp_path / "root", GONE="1"), reporter=reporter)
    assert found == {"FINE": "1"}
    assert [("LINES2" in text, "GONE" in text) for text in reporter.texts] == [(True, False), (False, True)]


def test_noise_and_forged_marks_do_no_harm(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, {"x.sh": "echo himl-noise; echo oops >&2; export A=1; himl_mark=forged; false"})
    assert capture(tmp_path, layer, ShellEngine(tmp_path / "root")) == {"A": "1"}


@pytest.mark.parametrize("script", ["echo why; exit 3", "exit 0", "kill -9 $$"])
def test_a_script_that_ends_the_shell_is_an_error(tmp_path: Path, script: str) -> None:
    layer = layer_of(tmp_path, {"bad.sh": script})
    with pytest.raises(BuildError, match="fail or end the shell") as caught:
        capture(tmp_path, layer, ShellEngine(tmp_path / "root"))
    assert "activate.d/bad.sh" in caught.value.where
    if "why" in script:
        assert "why" in caught.value.what


def test_variables_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    layer = plans.stored_layer(Cache(tmp_path / "cache"), "x", {f"{FOLDER}/env_vars.d/bad.json": "[1, 2"})
    with pytest.raises(BuildError, match="cannot be read"):
        capture(tmp_path, layer, ShellEngine(tmp_path))


def test_nothing_runs_without_scripts_or_for_the_same_ones(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    plain = plans.stored_layer(cache, "himl", {"/opt/himl/etc/conda/other": "x"})
    engine = ShellEngine(tmp_path / "root")
    assert capture(tmp_path, plain, engine) == {}
    assert known_activation([plain], cache=cache) == {}
    assert engine.runs == 0
    layer = layer_of(tmp_path, {"x.sh": "export A=1"})
    assert known_activation([layer], cache=cache) is None
    capture(tmp_path, layer, engine)
    layer.path.unlink()  # neither the layer nor a container is needed again
    assert capture(tmp_path, layer, engine) == {"A": "1"}
    assert known_activation([layer], cache=cache) == {"A": "1"}
    assert engine.runs == 1
    assert known_activation([layer], cache=cache, plan=plans.plan(apt=("curl",))) is None


def test_files_are_those_directly_in_the_two_folders(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    layer = plans.stored_layer(
        cache,
        "x",
        {
            f"{FOLDER}/activate.d/é.sh": os.urandom(20),
            f"{FOLDER}/activate.d/deep/no.sh": "x",
            f"{FOLDER}/deactivate.d/no.sh": "x",
        },
    )
    assert [path for path, _ in find_files([layer], cache=cache).scripts] == [f"{FOLDER}/activate.d/é.sh"]
