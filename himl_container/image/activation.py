"""What Conda's activation would set, found out once and put into the image's environment.

``conda activate`` sets the variables of ``etc/conda/env_vars.d/*.json``, then sources ``etc/conda/activate.d/*.sh``,
each in the order of their names. A container has no activation, so we run that once, without network, and keep the
difference by the content of those files: most environments have none, and then nothing runs at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from himl_container.cache import Cache
from himl_container.errors import BuildError
from himl_container.image import tar_scan
from himl_container.image.config import OWN_PATH, PATH_REFERENCE
from himl_container.image.engine import Engine
from himl_container.image.model import PREFIX, ImagePlan, Layer
from himl_container.image.quoting import UNWRITABLE
from himl_container.progress import Reporter

_FORMAT = 1
_FOLDERS = (f"{PREFIX}/etc/conda/activate.d/".lstrip("/"), f"{PREFIX}/etc/conda/env_vars.d/".lstrip("/"))
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SHELL_OWN = {"_", "PWD", "OLDPWD", "SHLVL", "HOME", "HOSTNAME", "TERM", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER"}
_PATIENCE = 300.0

# Sources every script, as 'conda activate' does, in the shell that Conda's users have, else in the one that there is.
# @MARK@ stands for a random word around what 'env -0' prints: NUL ends a variable, so no value is mistaken for another.
# Nothing is kept in a variable behind the scripts, which may change any; 'command -p' finds env on any PATH.
_SCRIPT = r"""
exec 2>&1
if [ -z "$HIML_SHELL" ] && command -v bash >/dev/null; then
    HIML_SHELL=bash; export HIML_SHELL; exec bash -c "$1" "$0" "$@"
fi
unset HIML_SHELL
shift
printf '%s' '@MARK@'; command -p env -0; printf '%s' '@MARK@'
while [ "$1" != -- ]; do export "$1"; shift; done
shift
for himl_script in "$@"; do
    . "$himl_script" </dev/null || echo "$himl_script ended with exit code $?"
done
unset himl_script
printf '%s' '@MARK@'; command -p env -0; printf '%s' '@MARK@'
"""


@dataclass(frozen=True)
class ActivationFiles:
    """The files of the environment that activation reads, by their path in the image, in the order of their names."""

    scripts: tuple[tuple[str, bytes], ...] = ()
    variables: tuple[tuple[str, bytes], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether activation has nothing to do."""
        return not self.scripts and not self.variables


def capture_activation(
    image: str,
    *,
    layers: Sequence[Layer],
    engine: Engine,
    cache: Cache,
    reporter: Reporter,
    plan: ImagePlan | None = None,
) -> Mapping[str, str]:
    """Return the variables that activation sets in an image, sorted by name.

    In ``PATH`` the entry :data:`PATH_REFERENCE` stands for the path before activation. A variable that activation
    removes cannot be expressed in an image and is warned of, like a value that no image can hold.

    :param image: has the layers, and the environment variables of ``plan``.
    :param plan: variables that the user declared there are not overridden by a package's ``env_vars.d``.
    :raises BuildError: a script fails or ends the shell; carries its output.
    """
    files = find_files(layers, cache=cache)
    if files.empty:
        return {}
    memo = ("memo", "activation", f"{memo_key(files, plan)}.json")
    known = cache.read_json(*memo)
    if _is_environment(known):
        return dict(sorted(known.items()))
    with reporter.step("activate", f"{len(files.scripts)} scripts"):
        before, after = _run(image, files, plan, engine)
    result = _difference(before, after, reporter)
    cache.write_json(result, *memo)
    return result


def known_activation(
    layers: Sequence[Layer], *, cache: Cache, plan: ImagePlan | None = None
) -> Mapping[str, str] | None:
    """Return what :func:`capture_activation` would, where that is known without running a container; else None."""
    files = find_files(layers, cache=cache)
    if files.empty:
        return {}
    known = cache.read_json("memo", "activation", f"{memo_key(files, plan)}.json")
    return dict(sorted(known.items())) if _is_environment(known) else None


def find_files(layers: Sequence[Layer], *, cache: Cache) -> ActivationFiles:
    """Return the activation files of layers; the headers of a layer are read once, ever.

    :raises BuildError: a layer cannot be read.
    """
    found: dict[str, bytes] = {}
    for layer in layers:
        memo = ("memo", "activation-files", f"{layer.digest.partition(':')[2]}.json")
        known = cache.read_json(*memo)
        if not (isinstance(known, dict) and known.get("format") == _FORMAT):
            with tar_scan.opened(layer.path) as data:
                # Latin-1 gives every byte a character, so that JSON holds any content.
                texts = {
                    member.path: data[member.offset : member.offset + member.size].decode("latin-1")
                    for member in tar_scan.members(data)
                    if member.kind == "file" and member.path.startswith(_FOLDERS)
                }
            known = {"format": _FORMAT, "files": texts}
            cache.write_json(known, *memo)
        found.update({path: text.encode("latin-1") for path, text in known["files"].items()})
    direct = {path: content for path, content in sorted(found.items()) if path.rpartition("/")[0] + "/" in _FOLDERS}
    return ActivationFiles(
        scripts=tuple(("/" + path, content) for path, content in direct.items() if path.endswith(".sh")),
        variables=tuple(("/" + path, content) for path, content in direct.items() if path.endswith(".json")),
    )


def memo_key(files: ActivationFiles, plan: ImagePlan | None) -> str:
    """Hash everything that can change the outcome: the files, and where they run."""
    total = hashlib.sha256(f"{_FORMAT} {_SCRIPT}".encode())
    if plan is not None:
        total.update(repr((plan.base, plan.system, plan.environment)).encode())
    for path, content in files.scripts + files.variables:
        total.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        total.update(content)
    return total.hexdigest()


def _run(
    image: str, files: ActivationFiles, plan: ImagePlan | None, engine: Engine
) -> tuple[dict[str, str], dict[str, str]]:
    mark = f"himl-{secrets.token_hex(16)}:"
    declared = dict(plan.environment) if plan is not None else {}
    variables = {name: value for name, value in _variables(files).items() if name not in declared}
    assignments = [f"{name}={value}" for name, value in variables.items()]
    scripts = [path for path, _ in files.scripts]
    script = _SCRIPT.replace("@MARK@", mark)
    result = engine.run(
        image,
        [script, *assignments, "--", *scripts],
        entrypoint=["/bin/sh", "-c", script, "sh"],
        network=False,
        timeout=_PATIENCE,
    )
    parts = result.output.split(mark.encode())
    if result.exit_code or len(parts) != 5:
        raise BuildError(
            f"the activation scripts of the environment fail or end the shell (exit code {result.exit_code})\n"
            + b" ".join(parts[2:3] or parts[:1]).decode("utf-8", "replace").strip()[-2000:],
            where=", ".join(scripts)[:300],
            hint="A package brings these scripts; another version or build of it may do without them.",
        )
    return _environment(parts[1]), _environment(parts[3])


def _variables(files: ActivationFiles) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, content in files.variables:
        found.update(_read_variables(path, content))
    return found


def _read_variables(path: str, content: bytes) -> dict[str, str]:
    try:
        values = json.loads(content)
        return {str(name): str(value) for name, value in values.items() if _NAME.match(str(name))}
    except (ValueError, AttributeError) as error:
        raise BuildError(f"a package's variables cannot be read: {error}", where=path) from error


def _environment(text: bytes) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in text.decode("utf-8", "replace").split("\0"))
    return {name: value for name, found, value in pairs if found}


def _difference(before: Mapping[str, str], after: Mapping[str, str], reporter: Reporter) -> dict[str, str]:
    result = {}
    for name, value in sorted(after.items()):
        if name in _SHELL_OWN or value == before.get(name) or not _NAME.match(name):
            continue
        if UNWRITABLE.search(value):
            reporter.warn(f"activation sets {name} to a value with a line break, which an image cannot hold: left out")
            continue
        result[name] = _relative(value, before.get("PATH", "")) if name == "PATH" else value
    for name in sorted(set(before) - set(after) - _SHELL_OWN):
        reporter.warn(f"activation removes the variable {name}, which an image cannot express: it stays set")
    return result


def _relative(path: str, before: str) -> str:
    """Return ``path`` with what was the path before as one entry, so that it holds on any base."""
    old, new = before.split(":"), path.split(":")
    for start in range(len(new) - len(old) + 1):
        if new[start : start + len(old)] == old:
            return ":".join([*new[:start], PATH_REFERENCE, *new[start + len(old) :]])
    return path if OWN_PATH in new else f"{path}:{PATH_REFERENCE}"


def _is_environment(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
