"""What the documentation site has beside ``docs/``: the reference of names and commands, and files that pages link to.

MkDocs calls the functions whose names begin with ``on_`` (``hooks`` in ``mkdocs.yml``).
"""

from __future__ import annotations

import ast
import inspect
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
SOURCES = "source"
"""Folder of the site with what is linked to and is not documentation: examples, programs."""

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)((?:#[^)\s]*)?)\)")
_FENCED = re.compile(r"^(`{3,}).*?^\1", re.DOTALL | re.MULTILINE)
_DOCS = ROOT / "docs"
_LANGUAGES = {".md": "markdown", ".py": "python", ".yml": "yaml", ".toml": "toml", ".sh": "bash"}


@dataclass(frozen=True)
class ReferencePage:
    """A page of the reference.

    :param module: whose ``__all__`` is described.
    :param file: of that module.
    """

    page: str
    module: str
    file: str


# In this order: what an earlier page describes, a later one links to.
REFERENCE = (
    ReferencePage("reference/himl_container.md", "himl_container", "himl_container/__init__.py"),
    ReferencePage("reference/training.md", "himl_container.training", "himl_container/training/__init__.py"),
    ReferencePage("reference/health_azure.md", "health_azure", "himl_container/compat/health_azure/__init__.py"),
    *(
        ReferencePage(
            "reference/health_azure_modules.md", f"health_azure.{name}", f"himl_container/compat/health_azure/{name}.py"
        )
        for name in ("himl", "utils", "datasets", "himl_tensorboard", "himl_download")
    ),
    ReferencePage("reference/health_ml.md", "health_ml.utils", "himl_container/compat/health_ml/utils/__init__.py"),
    *(
        ReferencePage(
            "reference/health_ml.md", f"health_ml.utils.{name}", f"himl_container/compat/health_ml/utils/{name}.py"
        )
        for name in ("logging", "diagnostics")
    ),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and what pages link to outside of ``docs/``."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = [Path(page.abs_src_path) for page in files.documentation_pages() if page.abs_src_path]
    for name, text in {**reference_pages(), "commands.md": commands_page()}.items():
        files.append(File.generated(config, name, content=text))
    for path in _copies(pages):
        content = path.read_text(encoding="utf-8")
        if path.suffix != ".md":
            language = _LANGUAGES.get(path.suffix, "text")
            content = f"# {path.relative_to(ROOT)}\n\n````{language}\n{content.rstrip()}\n````\n"
        files.append(File.generated(config, _uri(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that lead out of ``docs/`` lead to the copies in the site."""

    uri = page.file.src_uri
    copied = uri.startswith(f"{SOURCES}/")
    folder = (ROOT / uri.removeprefix(f"{SOURCES}/") if copied else ROOT / "docs" / uri).parent

    def moved(found: re.Match[str]) -> str:
        target = _target(found[2], folder)
        if target is None or (_DOCS in target.parents and not copied):
            return found[1] if copied and target is None else found[0]
        return f"[{found[1]}]({posixpath.relpath(_uri(target), posixpath.dirname(uri) or '.')}{found[3]})"

    return _outside_of_code(markdown, lambda text: _LINK.sub(moved, text))


def reference_pages() -> dict[str, str]:
    """Return the Markdown of each page of the reference; every public name is described on exactly one."""
    described: dict[str, str] = {}
    texts: dict[str, list[str]] = {}
    for one in REFERENCE:
        if not (ROOT / one.file).is_file():
            continue
        tree = ast.parse((ROOT / one.file).read_text(encoding="utf-8"))
        lines = texts.setdefault(one.page, [])
        first = not lines
        doc = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")
        lines += [f"{'#' if first else '##'} {one.module}", "", doc, ""]
        lines += _names(one, tree, described, level=2 if first else 3)
    return {page: "\n".join(lines) + "\n" for page, lines in texts.items()}


def _names(one: ReferencePage, tree: ast.Module, described: dict[str, str], *, level: int) -> Iterator[str]:
    """Yield the Markdown for the names of a module: descriptions, and a table of those that another page describes."""
    places = _places(tree, one.module)
    elsewhere: list[str] = []
    constants: list[str] = []
    for name in _exported(tree):
        target = places.get(name, f"{one.module}.{name}")
        value = _constant(target)
        if value is not None:
            constants.append(f"| `{name}` | `{value[0]}` | {value[1]} |")
        elif target in described:
            elsewhere.append(f"- [`{name}`][{target}]")
        elif name != "__version__":
            described[target] = one.page
            yield f"::: {target}\n    options:\n      heading_level: {level}\n"
    if constants:
        yield "\n".join(
            ("", f"{'#' * level} Constants of {one.module}", "", "| name | value | |", "| --- | --- | --- |")
        )
        yield "\n".join(constants) + "\n"
    if elsewhere:
        yield f"\n{'#' * level} The same names in {one.module}\n"
        yield "\n".join(elsewhere) + "\n"


def _exported(tree: ast.Module) -> list[str]:
    """Return the names in ``__all__``, else the functions and classes of the module, by name whatever the case."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(one, ast.Name) and one.id == "__all__" for one in node.targets
        ):
            return sorted(ast.literal_eval(node.value), key=str.lower)
    return sorted(
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"
    )


def _places(tree: ast.Module, module: str) -> dict[str, str]:
    """Return where the names that a module imports are defined."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            found.update({one.asname or one.name: _definition(node.module, one.name) for one in node.names})
    return found


def _file(module: str) -> Path | None:
    for base in (ROOT, ROOT / "himl_container" / "compat"):
        path = base.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _definition(module: str, name: str) -> str:
    """Return the full name of the place where a name is defined, through modules that hand it on."""
    file = _file(module)
    if file is None:
        return f"{module}.{name}"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("himl_container", "health_")):
            for one in node.names:
                if (one.asname or one.name) == name:
                    return _definition(node.module, one.name)
    return f"{module}.{name}"


def _constant(target: str) -> tuple[str, str] | None:
    """Return the value of a plain constant as Python writes it, and its description; None for anything else."""
    module, _, name = target.rpartition(".")
    file = _file(module)
    if file is None:
        return None
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for number, node in enumerate(body):
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            if not isinstance(node.value, ast.Constant):
                return None
            doc = _string_after(body[number + 1 : number + 2])
            return repr(node.value.value), doc
    return None


def _string_after(rest: list[ast.stmt]) -> str:
    """Return the string that stands behind a constant and describes it, for a cell of a table."""
    if rest and isinstance(rest[0], ast.Expr) and isinstance(rest[0].value, ast.Constant):
        text = rest[0].value.value
        if isinstance(text, str):
            return inspect.cleandoc(text).replace("\n", " ").replace("``", "`").replace("|", "\\|")
    return ""


def commands_page() -> str:
    """Return the page of all commands, with their own help."""
    import click

    from himl_container.cli.main import COMMANDS, cli

    lines = ["# Commands", "", "What `himl-container COMMAND --help` prints.", ""]
    lines += ["| command | |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name}) | {text} |" for name, text in COMMANDS.items()]
    context = click.Context(cli, info_name="himl-container")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None, name
        lines += _command(command, click.Context(command, parent=context, info_name=name), level=2)
    return "\n".join(lines) + "\n"


def _command(command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    import click

    yield f"\n{'#' * level} {context.command_path.partition(' ')[2]}\n"
    context.terminal_width = context.max_content_width = 100
    yield f"```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command(inner, click.Context(inner, parent=context, info_name=name), level=level + 1)


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Return a text with its parts changed that are not in fenced blocks."""
    parts: list[str] = []
    end = 0
    for block in _FENCED.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join((*parts, change(markdown[end:])))


def _copies(pages: list[Path]) -> list[Path]:
    """Return the files outside of ``docs/`` that these pages link to, and those that they in turn link to."""
    found: set[Path] = set()
    waiting = list(pages)
    while waiting:
        page = waiting.pop()
        if page.suffix != ".md":
            continue
        for link in _LINK.finditer(_FENCED.sub("", page.read_text(encoding="utf-8"))):
            target = _target(link[2], page.parent)
            if target is None or _DOCS in target.parents:
                continue
            new = set(_readable(target)) - found
            found |= new
            waiting += new
    return sorted(found)


def _target(link: str, folder: Path) -> Path | None:
    """Return the path in the repository that a link leads to; None where that is elsewhere or not there."""
    path = Path(posixpath.normpath(posixpath.join(folder, link)))
    return path if path != ROOT and path.is_relative_to(ROOT) and path.exists() else None


def _readable(target: Path) -> Iterator[Path]:
    """Yield a file, or the files of an example that are worth reading."""
    if target.is_file():
        yield target
        return
    yield from (path for path in sorted(target.iterdir()) if path.is_file() and path.suffix in _LANGUAGES)


def _uri(target: Path) -> str:
    """Return where the site has something: a page of ``docs/``, a copy, or the copy of a folder's ``README.md``."""
    if _DOCS in target.parents:
        return target.relative_to(_DOCS).as_posix()
    path = (target / "README.md" if target.is_dir() else target).relative_to(ROOT).as_posix()
    return f"{SOURCES}/{path}" if path.endswith(".md") else f"{SOURCES}/{path}.md"
