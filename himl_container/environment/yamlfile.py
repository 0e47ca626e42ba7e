"""A YAML file as nodes with lines. Only what an environment file needs: mappings, lists and strings, no magic.

PyYAML's ``compose`` gives the nodes with their places, and builds no object from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.environment.model import Origin
from himl_container.environment.selectors import UnknownSelectorError, holds, selector_of
from himl_container.environment.textfile import read_text
from himl_container.errors import InputError

if TYPE_CHECKING:
    import yaml

_STRING = "tag:yaml.org,2002:str"
_MEANINGS = {"bool": "a boolean", "null": "nothing", "int": "a number", "float": "a number", "timestamp": "a date"}
_MOST_ENTRIES = 10_000  # an alias may stand for a list; without a limit, lists of aliases of lists grow without bound


@dataclass
class YamlFile:
    """A file and its root mapping.

    :param platform: the Conda subdir for which selectors in comments are decided.
    :param warnings: filled while the file is read.
    """

    path: Path
    root: yaml.MappingNode
    lines: list[str]
    platform: str
    warnings: list[str]
    _entries: int = 0

    def origin(self, node: yaml.Node) -> Origin:
        """Return the place of a node."""
        return Origin(str(self.path), node.start_mark.line + 1)

    def error(self, node: yaml.Node, what: str, hint: str = "") -> InputError:
        """Return an error at the place of a node."""
        return InputError(what, where=str(self.origin(node)), hint=hint)

    def warn(self, node: yaml.Node, text: str) -> None:
        """Keep a warning about a node."""
        self.warnings.append(f"{self.origin(node)}: {text}")

    def items(self, node: yaml.Node, what: str) -> Iterator[yaml.Node]:
        """Yield the items of a list that the platform keeps.

        :param what: what the list is, for the error.
        """
        import yaml

        if is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(
                node, f"{what} is {kind(node)}, not a list", "Write each item on a line that begins with -."
            )
        for item in node.value:
            if self._kept(self._last_key(item)):
                self._count(item)
                yield item

    def pairs(self, node: yaml.Node, what: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Yield key, key node and value node of a mapping, those that the platform keeps.

        :raises InputError: it is no mapping, a key is no string, or stands there twice.
        """
        import yaml

        if is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} is {kind(node)}, not a mapping", "Write each entry as 'name: value'.")
        seen: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise self.error(key, "merge keys (<<) are not supported", "Write the entries out.")
            name = self.string(key, f"a key of {what}")
            if not self._kept(value if isinstance(value, yaml.ScalarNode) else key):
                continue
            if name in seen:
                raise self.error(key, f"the key {name!r} is there twice", f"The first one is in line {seen[name]}.")
            seen[name] = key.start_mark.line + 1
            self._count(key)
            yield name, key, value

    def string(self, node: yaml.Node, what: str, *, numbers: bool = False) -> str:
        """Return the text of a string node.

        :param numbers: numbers are taken as they are written.
        """
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, f"{what} is {kind(node)}, not a string", "Write one word or quoted text there.")
        if node.tag != _STRING and not (numbers and node.tag.rsplit(":", 1)[-1] in ("int", "float")):
            hint = f'YAML reads {node.value!r} so. Put it in quotes: "{node.value}".' if node.value else ""
            raise self.error(node, f"{what} is {kind(node)}, not a string", hint)
        return str(node.value)

    def _last_key(self, item: yaml.Node) -> yaml.Node:
        """Return the node after which an item's comment stands: of ``- pip:  # [linux]``, the key."""
        import yaml

        if isinstance(item, yaml.MappingNode) and item.value:
            key: yaml.Node = item.value[0][0]
            return key
        return item

    def _kept(self, node: yaml.Node) -> bool:
        """Whether the comment behind a node, if it is a selector, keeps the node."""
        import yaml

        if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">"):
            return True
        end = node.end_mark
        rest = self.lines[end.line][end.column :] if end.line < len(self.lines) else ""
        selector = selector_of(" " + rest.lstrip().removeprefix(":"))
        if selector is None:
            return True
        try:
            return holds(selector, self.platform)
        except UnknownSelectorError:
            self.warn(node, f"the comment [{selector}] is no selector that is known; the line is kept")
            return True

    def _count(self, node: yaml.Node) -> None:
        self._entries += 1
        if self._entries > _MOST_ENTRIES:
            raise self.error(node, f"the file has more than {_MOST_ENTRIES} entries")


_SYNTAX = "Look at this line and the one above: brackets, quotes, colons, and spaces (never tabs) in front."


def read_yaml(path: Path, *, platform: str, hint: str = "") -> YamlFile:
    """Return a file's nodes.

    :raises InputError: it cannot be read, is not YAML, is empty, or is something else than one mapping.
    """
    import yaml

    text = read_text(path, hint=hint)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"is not YAML: {error.problem or error.context}", where=where, hint=_SYNTAX) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(error.character):04X}" if isinstance(error.character, str) else repr(error.character)
        what = f"is not YAML: the character {character} is not allowed"
        raise InputError(
            what, where=f"{path}:{line}", hint="Is it a text file in UTF-8? Remove the character."
        ) from error
    except RecursionError as error:
        raise InputError("is nested too deeply", where=str(path), hint="An environment needs three levels.") from error
    if root is None or is_null(root):
        raise InputError("is empty", where=str(path), hint="A minimal one has 'channels:' and 'dependencies:'.")
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        hint = "It should have keys such as 'channels:' and 'dependencies:'."
        raise InputError(f"holds {kind(root)}, not a mapping", where=f"{path}:{line}", hint=hint)
    # Split as YAML 1.1 counts lines, so that marks fit; \r\n counts once.
    return YamlFile(path, root, _yaml_lines(text), platform, [])


def _yaml_lines(text: str) -> list[str]:
    for end in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
        text = text.replace(end, "\n")
    return text.split("\n")


def is_null(node: yaml.Node) -> bool:
    """Whether a node is YAML's null, as after a key without a value."""
    return bool(node.tag == "tag:yaml.org,2002:null")


def kind(node: yaml.Node) -> str:
    """Return what a node is, for people."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    name = node.tag.rsplit(":", 1)[-1]
    return _MEANINGS.get(name, "a string" if name == "str" else f"of the type {node.tag}")
