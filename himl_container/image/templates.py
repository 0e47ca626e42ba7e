"""Jinja2 as the Dockerfile needs it: values are refused unless a quoting filter let them in.

Autoescaping is on, with one twist: a value that no filter has quoted is not escaped for HTML but is an error. What a
filter returns, and a block's own text, is ``Markup``, which Jinja2 leaves alone. So a template, ours or a user's,
cannot forget to quote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.errors import InputError
from himl_container.image import quoting
from himl_container.image.config import DEFAULT_PATH, PATH_REFERENCE

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

MAIN = "Dockerfile.j2"
BLOCKS = ("base", "system", "environment", "settings", "extra")
"""The blocks that a user's template may replace."""

_USER = "user template"
_FILTERS = "quoted, exec, comment, image, apt, word"


def templates_folder() -> Path:
    """Return the folder of our templates: in the installed package, or in the source tree that it is run from.

    :raises InputError: neither is there, so the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_templates", package.parent / "templates"):
        if (folder / MAIN).is_file():
            return folder
    raise InputError("the templates are missing", where=str(package), hint="Install himl-container again.")


def render(values: dict[str, Any], *, template: Path | None = None, name: str = MAIN) -> str:
    """Render one of our templates, or the user's own, which extends it.

    :raises InputError: the user's template is missing or wrong, or a value cannot be quoted; ``where`` has the line.
    """
    import jinja2

    source = "" if template is None else _read(template)
    environment = _environment(source)
    try:
        return environment.get_template(_USER if template else name).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise _wrong(template, error.lineno, error.message or "is not a template") from error
    except jinja2.TemplateNotFound as error:
        raise InputError(
            f"the template names {error.name!r}, which does not exist",
            where=str(template),
            hint=f'A template is one file that begins with {{% extends "{MAIN}" %}}.',
        ) from error
    except jinja2.TemplateError as error:
        raise _wrong(template, _line_of(error), error.message or type(error).__name__) from error
    except InputError as error:
        if template and not error.where:
            error.where = f"{template}:{_line_of(error)}"
        raise
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, LookupError, OverflowError) as error:
        if template is None:
            raise
        raise _wrong(template, _line_of(error), str(error)) from error


def replaced_blocks(template: Path | None) -> frozenset[str]:
    """Return which of our blocks the user's template replaces; none without a template.

    :raises InputError: the template is missing or wrong, does not extend ours, or has a block that ours does not have.
    """
    if template is None:
        return frozenset()
    from jinja2 import TemplateSyntaxError, nodes

    try:
        tree = _environment("").parse(_read(template))
    except TemplateSyntaxError as error:
        raise _wrong(template, error.lineno, error.message or "is not a template") from error
    parents = [node.template for node in tree.find_all(nodes.Extends)]
    if [parent.value for parent in parents if isinstance(parent, nodes.Const)] != [MAIN]:
        raise _wrong(template, 1, f'does not extend "{MAIN}"')
    found = {node.name: node.lineno for node in tree.find_all(nodes.Block)}
    for name, line in found.items():
        if name not in BLOCKS:
            raise _wrong(template, line, f"there is no block {name!r} to replace")
    return frozenset(found)


def _read(template: Path) -> str:
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"cannot read the template: {what}", where=str(template)) from error


@lru_cache(maxsize=4)
def _environment(user_source: str) -> SandboxedEnvironment:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup

    def trusted(function: Callable[..., str]) -> Callable[..., Markup]:
        def call(*arguments: Any) -> Markup:
            for argument in arguments:
                if isinstance(argument, jinja2.Undefined):
                    str(argument)  # raises, naming the variable
            return Markup(function(*arguments))  # noqa: S704  # the functions below quote

        return call

    def finalize(value: Any) -> Any:
        if isinstance(value, Markup | int):
            return value
        if isinstance(value, jinja2.Undefined):
            return str(value)  # raises, naming the variable
        raise InputError(f"the template writes {str(value)[:60]!r} without quoting", hint=f"Add a filter: {_FILTERS}.")

    environment = SandboxedEnvironment(
        loader=jinja2.ChoiceLoader(
            [jinja2.DictLoader({_USER: user_source}), jinja2.FileSystemLoader(templates_folder(), encoding="utf-8")]
        ),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        quoted=trusted(quoting.quoted),
        exec=trusted(lambda words, more=(): quoting.exec_form([*_strings(words), *_strings(more)])),
        comment=trusted(quoting.comment),
        image=trusted(quoting.image_reference),
        apt=trusted(quoting.apt_package),
        assignments=trusted(quoting.assignments),
        lines=trusted(quoting.user_lines),
        word=trusted(quoting.plain_word),
        path=trusted(path_value),
    )
    environment.globals = {}  # a Dockerfile needs neither range nor lipsum
    return environment


def path_value(path: str) -> str:
    """Return the quoted ``PATH``, in which :data:`PATH_REFERENCE` is left for Docker to replace by the base's own."""
    pieces = [quoting.quoted(piece)[1:-1] for piece in path.split(PATH_REFERENCE)]
    return '"' + f"${{PATH:-{DEFAULT_PATH}}}".join(pieces) + '"'


def _strings(words: Iterable[Any]) -> Sequence[str]:
    return [str(word) for word in words]


def _wrong(template: Path | None, line: int, what: str) -> InputError:
    return InputError(
        f"the template is wrong: {what}",
        where=f"{template}:{line}" if line else str(template),
        hint=f"Blocks that can be replaced: {', '.join(BLOCKS)}. See docs/rendered-dockerfile.md.",
    )


def _line_of(error: BaseException) -> int:
    """Return the line of the user's template that an error came from, 0 where it cannot be told."""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in {_USER, "<template>", "<unknown>"}:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
