"""The tree of a snapshot, as a client sends it: looked at once, and then a list of files."""

from __future__ import annotations

from typing import NamedTuple

from himl_container.emulator.http import Refusal
from himl_container.emulator.state.paths import checked_path

MAX_FILES = 20_000
"""The SDK stops at 2,000 new files, unless ``AML_SNAPSHOT_NO_FILE_LIMIT`` is set."""

_DEEPEST = 100


class File(NamedTuple):
    """One file of a snapshot: where its bytes are, how many, and the hash that the client gave."""

    blob: str
    size: int
    hash: str


def leaves(tree: object) -> tuple[dict[str, str], list[str]]:
    """Return the files of a tree with their hashes, and its folders, parents first.

    :raises Refusal: 400, it is not a tree, or a name in it leads out.
    """
    files: dict[str, str] = {}
    folders: list[str] = []
    queue: list[tuple[str, object]] = [("", tree)]
    while queue:
        above, node = queue.pop(0)
        children = node.get("children") if isinstance(node, dict) else None
        if not isinstance(children, dict):
            raise Refusal(400, "UserError", "A folder of the tree has no children that are an object.")
        for name, child in children.items():
            path = checked_path(f"{above}{name}", "name in the tree")
            if path.count("/") >= _DEEPEST:
                raise Refusal(400, "UserError", f"A folder of a snapshot is at most {_DEEPEST} deep.")
            if not isinstance(child, dict) or path != f"{above}{name}" or child.get("name", name) != name:
                raise Refusal(400, "UserError", f"{path} is not a file or a folder of a tree.")
            if child.get("type") == "Directory":
                folders.append(path)
                queue.append((f"{path}/", child))
            elif child.get("type") == "File" and not child.get("children"):
                files[path] = str(child.get("hash") or "")
            else:
                # Symbolic links and the like: the SDK follows them and sends files.
                raise Refusal(400, "UserError", f"{path} is neither a File nor a Directory.")
            if len(files) + len(folders) > MAX_FILES:
                raise Refusal(400, "UserError", f"A snapshot has at most {MAX_FILES} files and folders.")
    return files, folders
