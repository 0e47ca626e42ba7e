"""The frame of the command line: how each way of ending becomes a message and an exit code, and what it imports."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from himl_container import errors
from himl_container.cli import main
from himl_container.cli.options import cache_options, environment_options, output_options
from himl_container.cli.output import Output
from himl_container.settings import Settings

Installed = Callable[[Callable[..., object]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Make a function the command ``try`` for this test."""

    def put(function: Callable[..., object]) -> None:
        module = ModuleType("himl_container.cli.try")
        module.command = click.command("try")(function)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "himl_container.cli.try", module)
        monkeypatch.setitem(main.COMMANDS, "try", "Only here.")

    yield put


def raising(error: BaseException) -> Callable[..., object]:
    @output_options
    def command(output: Output) -> None:
        raise error

    return command


FAMILIES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.HimlError) and value is not errors.HimlError
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_each_family_has_its_code_and_no_traceback(
    family: type[errors.HimlError], install: Installed, capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(family("is wrong", where="file:3", hint="Do this.\nOr that.")))
    assert main.run(["try"]) == family.exit_code
    captured = capsys.readouterr()
    assert captured.err == "error: file:3: is wrong\n  Do this.\n  Or that.\n"
    assert captured.out == ""


def test_the_codes_differ_and_stay_clear_of_small_ones() -> None:
    codes = [family.exit_code for family in FAMILIES]
    assert len(set(codes)) == len(codes)
    assert all(64 < code < 126 for code in codes)
    text = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
    for family in FAMILIES:
        assert f"| {family.exit_code} | `{family.__name__}` |" in text


def test_an_error_in_json(install: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    install(raising(errors.InputError("is wrong https://u:CANARY@h", where="f:1")))
    assert main.run(["try", "--json"]) == 65
    captured = capsys.readouterr()
    event = json.loads(captured.out)
    assert event == {
        "event": "error",
        "family": "InputError",
        "what": "is wrong https://h",
        "where": "f:1",
        "hint": "",
        "exit_code": 65,
    }
    assert captured.err == ""


def test_an_error_shows_no_credential(install: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    install(raising(errors.ArtifactError("cannot fetch https://u:CANARY@h/x?sig=CANARY")))
    main.run(["try"])
    assert "CANARY" not in capsys.readouterr().err


def test_other_ends(install: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in (
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("no"), 2),
        (OSError(errno.ENOSPC, "full", "/x"), 74),
        (OSError(errno.EDQUOT, "quota"), 74),
        (click.exceptions.Exit(7), 7),
    ):
        install(raising(error))
        assert main.run(["try"]) == code
    assert "Traceback" not in capsys.readouterr().err


ENDS = """
import sys, types
from himl_container.cli import main
def wait():
    print("waits", file=sys.stderr, flush=True)
    sys.stdin.readline()
    print("waited", file=sys.stderr, flush=True)
heard = main._wait_once_more
def once_more(number, frame):
    heard(number, frame)
    print("heard one", file=sys.stderr, flush=True)
main._wait_once_more = once_more
main.run = lambda arguments: 5
sys.modules["himl_container.image.engine_run"] = types.SimpleNamespace(finish_removals=wait)
main.main()
"""


@pytest.mark.parametrize(("presses", "code"), [(1, 5), (2, 130)])
def test_ctrl_c_at_the_very_end(presses: int, code: int) -> None:
    """What was done is done; only a second one leaves a daemon that answers no more."""
    command = [sys.executable, "-c", ENDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stderr
        assert process.stderr.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "heard one\n"  # two signals at once may be one
        if presses == 2:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        said = process.communicate("\n" if presses == 1 else None, timeout=60)[1]
    assert (process.returncode, said) == (code, "waited\n" if presses == 1 else "")


def test_a_command_returns_an_exit_code(install: Installed) -> None:
    install(lambda: 3)
    assert main.run(["try"]) == 3
    install(lambda: None)
    assert main.run(["try"]) == 0


def test_a_defect_leaves_a_report_without_credentials(
    install: Installed, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("HIML_CONTAINER_DEBUG", raising=False)
    install(raising(RuntimeError("odd https://u:CANARY@h")))
    assert main.run(["try"]) == 70
    message = capsys.readouterr().err
    (report,) = tmp_path.iterdir()
    assert str(report) in message
    assert "Traceback" not in message
    text = report.read_text()
    assert "RuntimeError" in text
    assert "Traceback" in text
    assert "CANARY" not in message + text
    assert report.stat().st_mode & 0o077 == 0


def test_debug_shows_the_traceback(
    install: Installed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIML_CONTAINER_DEBUG", "1")
    install(raising(RuntimeError("odd")))
    assert main.run(["try"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_unknown_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["biuld"]) == 2
    assert "Did you mean 'build'" in capsys.readouterr().err
    assert main.run(["--nonsense"]) == 2
    assert main.run(["--version"]) == 0


def test_options_become_settings(install: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    @environment_options
    @output_options
    def command(settings: Settings, output: Output) -> None:
        seen.append(settings)

    install(command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "c"))
    arguments = "--conda-file a.yml --conda-file b.yml --wheel w.whl --pip-extra-index-url https://x --cuda 12.4 -q"
    arguments += " --channel-mirror conda-forge=file:///m --image-name a/b --lock-file l --platform linux-64"
    assert main.run(["try", *arguments.split()]) == 0
    (settings,) = seen
    assert settings.conda_files == (tmp_path / "a.yml", tmp_path / "b.yml")
    assert settings.wheels == (tmp_path / "w.whl",)
    assert settings.pip_extra_index_urls == ("https://x",)
    assert settings.channel_mirrors == (("conda-forge", "file:///m"),)
    assert settings.cache_dir == tmp_path / "c"
    assert settings.lock_file == tmp_path / "l"
    assert settings.image_name == "a/b"


def test_a_bad_option_is_an_input_error(install: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    @output_options
    @cache_options
    def command(settings: Settings, output: Output) -> None: ...

    install(command)
    assert main.run(["try", "--cache-dir", "a\nb"]) == 65
    assert "--cache-dir" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["settings", "output"])
def test_a_bad_setting_is_told_as_json(
    first: str, install: Installed, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(settings: Settings, output: Output) -> None: ...

    decorators = (environment_options, output_options)
    for decorate in decorators if first == "output" else decorators[::-1]:
        command = decorate(command)
    install(command)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.himl-container]\nnonsense = 1\n")
    assert main.run(["try", "--json"]) == 65
    captured = capsys.readouterr()
    event = json.loads(captured.out)
    assert (event["event"], event["exit_code"]) == ("error", 65)
    assert "nonsense" in event["what"]
    assert captured.err == ""
    assert main.run(["try"]) == 65
    assert capsys.readouterr().out == ""


def _run(*command: str, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **options}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)


HEAVY = {"docker", "rattler", "azureml", "torch", "yaml", "jinja2", "packaging", "requests", "httpx", "uv", "asyncio"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    done = _run("-X", "importtime", "-m", "himl_container.cli.main", *arguments)
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "click" in imported
    assert not {name for name in imported if name.split(".")[0] in HEAVY or name.startswith("rich")}
    assert not {name for name in imported if name.startswith(("himl_container.image", "himl_container.environment"))}


@pytest.mark.parametrize("module", ["himl_container", "himl_container.cli.main"])
def test_help_of_the_group_names_each_command(module: str) -> None:
    done = _run("-m", module, "--help")
    assert done.stdout.startswith("Usage: himl-container ")
    for name, text in main.COMMANDS.items():
        assert f"{name} " in done.stdout
        assert text.split()[0] in done.stdout


def test_a_closed_pipe_is_no_error() -> None:
    script = "from himl_container.cli.main import main; main(['version'])"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_importing_the_package_imports_nothing_else() -> None:
    done = _run("-c", "import himl_container, sys; print([n for n in sys.modules if n.startswith('himl_container.')])")
    assert done.stdout.strip() == "[]"
    done = _run("-c", "import himl_container; print(himl_container.load_settings.__module__); himl_container.nonsense")
    assert done.stdout.strip() == "himl_container.settings"
    assert "AttributeError" in done.stderr
