"""What the documentation names is there: pages, places in them, commands, flags, arguments and names of Python."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from kit import ROOT

from himl_container.cli.main import COMMANDS, cli

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md"), *ROOT.glob("examples/*.md")]
)
GENERATED = {"commands.md", *(f"reference/{name}.md" for name in ("himl_container", "training", "health_azure"))}
GENERATED |= {"reference/health_azure_modules.md", "reference/health_ml.md"}
FENCED = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1`*$", re.DOTALL | re.MULTILINE)
OF_CLICK = {"-h", "--help", "--version"}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@functools.cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCED.sub("", read(page))


def blocks(page: Path, *languages: str) -> list[str]:
    return [found[3] for found in FENCED.finditer(read(page)) if found[2] in languages]


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """The places of a page: its headings, as the site and GitHub name them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        found.append(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()))
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        if path in GENERATED and page.parent == ROOT / "docs":
            continue
        other = (page.parent / path) if path else page
        if not other.exists() or (anchor and other.suffix == ".md" and anchor not in anchors(other.resolve())):
            wrong.append(target)
    assert wrong == []


def nav_pages(nav: Any) -> Iterator[str]:
    for item in nav:
        (inner,) = item.values()
        if isinstance(inner, str):
            yield inner
        else:
            yield from nav_pages(inner)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = list(nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(nav) == len(set(nav))
    assert set(nav) == {page.name for page in ROOT.glob("docs/*.md")} | GENERATED


@pytest.mark.parametrize(
    "module",
    [
        *(
            f"health_azure{name}"
            for name in ("", ".himl", ".utils", ".datasets", ".himl_tensorboard", ".himl_download")
        ),
        *(f"health_ml.utils{name}" for name in ("", ".logging", ".diagnostics")),
    ],
)
def test_moving_from_hi_ml_tells_of_every_name(module: str) -> None:
    (file,) = [
        path
        for base in [ROOT / "himl_container/compat" / module.replace(".", "/")]
        for path in (base.with_suffix(".py"), base / "__init__.py")
        if path.is_file()
    ]
    words = re.findall(r"`([\w.]+)`", read(ROOT / "docs" / "moving-from-hi-ml.md"))
    prefixes = tuple(word.removesuffix("...") for word in words if word.endswith("..."))
    (names,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(read(file)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ] or [[]]
    constants = {name for name in names if name.isupper() and name != "RUN_CONTEXT"}
    assert [name for name in set(names) - set(words) - constants if not name.startswith(prefixes)] == []


@functools.cache
def _command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every ``himl-container ...`` of a page: those of blocks that a shell would take, and those in the text."""
    lines: list[str] = []
    for block in blocks(page, "console", "bash", "sh", "text", "", "yaml"):
        lines += block.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(himl-container[^`\n]*)`", prose(page))
    for line in lines:
        for found in re.findall(r"(?:^|[\s$(;&|])himl-container ([a-z][^\n]*)", line):
            text = re.split(r"   +#| # |\s(?:&&|\||;|>) ?|\)\"|[)…]", found)[0]
            try:
                yield shlex.split(text)
            except ValueError:
                continue


def unknown_words(words: list[str]) -> list[str]:
    """Return the flags of a command line that its command does not have; what belongs to a script is not looked at."""
    if words[0] not in COMMANDS:
        return words[:1]
    command, rest = _command(words[0]), words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(click.Context(command), rest[0])
        if inner is None:
            return rest[:1]
        command, rest = inner, rest[1:]
    options = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    passes_on = any(isinstance(one, click.Argument) and one.nargs == -1 for one in command.params)
    unknown: list[str] = []
    while rest:
        word, rest = rest[0], rest[1:]
        name = word.partition("=")[0]
        if word == "--" or (passes_on and not word.startswith("-")):
            break
        if not word.startswith("-") or name in OF_CLICK:
            continue
        option = options.get(name)
        if option is None:
            unknown.append(word)
        elif not option.is_flag and "=" not in word:
            rest = rest[1:]
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_and_flags_exist(page: Path) -> None:
    assert [(words, wrong) for words in command_lines(page) if (wrong := unknown_words(words))] == []


@functools.cache
def flags_of(program: str) -> frozenset[str]:
    done = subprocess.run(
        [Path(sys.executable).parent / program, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", done.stdout))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_flags_of_hi_mls_programs_exist(page: Path) -> None:
    text = "\n".join([*blocks(page, "console", "bash", "text", ""), *re.findall(r"`([^`\n]*)`", prose(page))])
    for program in ("himl-tb", "himl-download"):
        for rest in re.findall(rf"(?:^|[\s$]){program}\b([^\n#]*)", text, re.MULTILINE):
            assert set(re.findall(r"(?<=\s)--[a-z_-]+", rest)) <= flags_of(program), rest


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    assert unknown_words(["submt", "--azureml"]) == ["submt"]
    assert unknown_words(["emulator", "begin"]) == ["begin"]
    assert unknown_words(["run", "--local", "--shm-size", "--odd", "--oddly", "x.py", "--lr", "1"]) == ["--oddly"]
    assert unknown_words(["emulator", "start", "--detach", "--port", "0"]) == []


@functools.cache
def signature(name: str) -> frozenset[str] | None:
    """The arguments of a public function or class; None where it takes any, or is not ours."""
    import inspect

    import health_azure
    import health_azure.utils
    import himl_container

    for module in (health_azure, health_azure.utils, himl_container):
        if name in module.__all__:
            parameters = inspect.signature(getattr(module, name)).parameters.values()
            return (
                None
                if any(one.kind is one.VAR_KEYWORD for one in parameters)
                else frozenset(one.name for one in parameters)
            )
    return None


def python_blocks() -> list[Any]:
    return [
        pytest.param(text, id=f"{page_name(page)}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks(page, "python"))
    ]


@pytest.mark.parametrize("text", python_blocks())
def test_python_in_pages_is_valid_and_uses_names_that_exist(text: str) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("health_azure", "himl_container"):
            import importlib

            module = importlib.import_module(str(node.module))
            exported = getattr(module, "__all__", None) or dir(module)
            assert [one.name for one in node.names if one.name not in exported] == []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            known = signature(node.func.id)
            if known is not None:
                assert {word.arg for word in node.keywords if word.arg} <= known


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text(encoding="utf-8")))
    assert used - {"wheel"} <= targets  # of example 5's own Makefile
