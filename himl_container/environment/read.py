"""One Conda ``environment.yml``, read as Conda reads it, every entry with its file and line.

Keys as in Conda's documentation, "Creating an environment file manually": name, channels, dependencies (with a ``pip:``
list), variables; ``prefix`` is ignored because the image decides it. An unknown key gives a warning, as in Conda.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.config.sources import Raw
from himl_container.config.values import channel, expand_variables
from himl_container.environment.model import CondaDependency, Origin
from himl_container.environment.urls import scrub
from himl_container.environment.yamlfile import YamlFile, is_null, read_yaml
from himl_container.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import yaml

_KNOWN_KEYS = ("name", "channels", "dependencies", "variables", "prefix")
_NAME = re.compile(r"[^\s/:#\\]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_URL_SPEC = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?!.*::)|.*\.(?:conda|tar\.bz2)$", re.DOTALL)
_TOKEN_CHANNEL = re.compile(r"/t/[^/]+/")
_CREDENTIALS_HINT = "Keep it in rattler's auth file (RATTLER_AUTH_FILE), or in a channel mirror of the settings."


@dataclass(frozen=True)
class Variable:
    """One entry of ``variables``."""

    name: str
    value: str
    origin: Origin = field(compare=False)


@dataclass(frozen=True)
class Channel:
    """One entry of ``channels``: a name, a URL or an absolute path."""

    name: str
    origin: Origin = field(compare=False)


@dataclass(frozen=True)
class PipLine:
    """One item of the ``pip:`` list as it is written; an item may have several lines."""

    text: str
    origin: Origin = field(compare=False)


@dataclass(frozen=True)
class EnvironmentFile:
    """What one file declares, in its own order.

    :param channels: as listed, ``nodefaults`` left out.
    """

    path: Path
    name: str
    channels: tuple[Channel, ...]
    dependencies: tuple[CondaDependency, ...]
    pip: tuple[PipLine, ...]
    variables: tuple[Variable, ...]
    warnings: tuple[str, ...]


def read_environment(path: Path, *, platform: str, environ: Mapping[str, str] | None = None) -> EnvironmentFile:
    """Return what an environment file declares for a platform.

    :param environ: variables for ``${NAME}`` in channel URLs; none by default.
    :raises InputError: anything is wrong with the file; names the line.
    """
    file = read_yaml(path, platform=platform, hint="Name another one with --conda-file.")
    sections = {name: (key, value) for name, key, value in file.pairs(file.root, "the file")}
    for name, (key, _) in sections.items():
        if name not in _KNOWN_KEYS:
            file.warn(key, f"unknown key {name!r}; it has no effect")
    values = {name: value for name, (_, value) in sections.items()}
    conda, pip = _dependencies(file, values.get("dependencies"))
    return EnvironmentFile(
        path=path,
        name=_name(file, values.get("name")),
        channels=_channels(file, values.get("channels"), environ or {}),
        dependencies=conda,
        pip=pip,
        variables=_variables(file, values.get("variables")),
        warnings=tuple(file.warnings),
    )


def conda_dependency(text: str, origin: Origin) -> CondaDependency:
    """Return a dependency in rattler's own spelling of it.

    :raises InputError: it is not a MatchSpec, or one that names a file or URL in place of a package.
    """
    from rattler import MatchSpec
    from rattler.exceptions import InvalidMatchSpecError

    def refuse(what: str, hint: str = "") -> InputError:
        return InputError(scrub(what), where=str(origin), hint=hint)

    if not text.strip():
        raise refuse("an empty dependency", "Remove the line, or name a package.")
    if not text.isprintable() or not text.isascii():
        raise refuse(f"{text!r} has characters that no Conda package has", "Perhaps something was pasted with it.")
    if _URL_SPEC.match(text):
        hint = "Name the package and its channel (channel::name=version); a channel can be a folder (file:///...)."
        raise refuse("a dependency is the address of a file; only packages of a channel can be locked", hint)
    # The channel is kept as it is written: rattler's own text of a spec moves a channel's URL into brackets.
    named, separator, rest = text.strip().partition("::")
    if separator:
        _check_channel(named, str(origin))
        if "@" in named:
            raise refuse("the channel's URL has credentials in it", "List it in 'channels' with ${NAME} variables.")
    try:
        spec = MatchSpec(rest if separator else named, extras=False, conditionals=False, flags=False)
    except InvalidMatchSpecError as error:
        reason = str(error).splitlines()[0]
        raise refuse(f"{text!r} is not a Conda package specification: {reason}") from error
    canonical = str(spec)
    plain = not (spec.build and re.search(r"[\s=]", spec.build)) and not spec.namespace and "#" not in text
    odd = "url=" in canonical or "channel=" in canonical or (separator and "::" in canonical)
    if odd or not plain or str(MatchSpec(canonical)) != canonical:
        hint = "Write it as name, name>=1.2,<2, name=1.2=build or channel::name."
        raise refuse(f"{text!r} is not a Conda package specification that can be used here", hint)
    if separator:
        canonical = f"{named.rstrip('/')}::{canonical}"
    elif "::" in canonical:
        _check_channel(canonical.partition("::")[0], str(origin))
    return CondaDependency(spec=canonical, name=_package_name(spec), origin=origin)


def _package_name(spec: object) -> str:
    name = getattr(spec, "name", None)
    return str(getattr(name, "normalized", name)).lower()


def _name(file: YamlFile, node: yaml.Node | None) -> str:
    if node is None or is_null(node):
        return ""
    name = file.string(node, "the name", numbers=True)
    if name and not (_NAME.fullmatch(name) and name.isprintable()):
        raise file.error(node, f"{name!r} is not a name for an environment", "Leave out spaces and / : # \\.")
    return name


def _channels(file: YamlFile, node: yaml.Node | None, environ: Mapping[str, str]) -> tuple[Channel, ...]:
    if node is None:
        return ()
    result: list[Channel] = []
    for item in file.items(node, "'channels'"):
        text = file.string(item, "a channel").strip()
        origin = file.origin(item)
        if text == "nodefaults":
            continue
        if "://" in text:
            text = expand_variables(text, environ)
        elif text.startswith(("/", "./", "../")) and text.isprintable():
            result.append(Channel((file.path.parent.absolute() / text).resolve().as_uri(), origin))
            continue
        _check_channel(text, str(origin))
        result.append(Channel(text.rstrip("/"), origin))
    return tuple(dict.fromkeys(result))


def _check_channel(text: str, where: str) -> None:
    if _TOKEN_CHANNEL.search(text) and "://" in text:
        raise InputError("the channel's URL has a token in it", where=where, hint=_CREDENTIALS_HINT)
    # "conda-forge/linux-64::name" names a subdir as well, which the grammar of channels covers.
    channel(text, Raw(text, where, Path()))


def _dependencies(file: YamlFile, node: yaml.Node | None) -> tuple[tuple[CondaDependency, ...], tuple[PipLine, ...]]:
    import yaml

    conda: list[CondaDependency] = []
    pip: list[PipLine] = []
    if node is not None:
        for item in file.items(node, "'dependencies'"):
            if isinstance(item, yaml.MappingNode):
                for name, key, value in file.pairs(item, "a dependency"):
                    if name != "pip":
                        raise file.error(key, f"unknown kind of dependency {name!r}", "Only 'pip:' can hold a list.")
                    pip += [
                        PipLine(file.string(line, "a pip requirement"), file.origin(line))
                        for line in file.items(value, "'pip'")
                    ]
            else:
                conda.append(conda_dependency(file.string(item, "a dependency"), file.origin(item)))
    return tuple(conda), tuple(pip)


def _variables(file: YamlFile, node: yaml.Node | None) -> tuple[Variable, ...]:
    if node is None:
        return ()
    result: list[Variable] = []
    for name, key, value in file.pairs(node, "'variables'"):
        if not _VARIABLE.fullmatch(name):
            hint = "Letters, digits and underscores, not a digit first."
            raise file.error(key, f"{name!r} is not a name for an environment variable", hint)
        if name == "PATH":
            hint = (
                "Put ENV PATH=... into system-lines of the settings; the environment's own folder goes in front of it."
            )
            raise file.error(key, "PATH cannot be set here, it would hide the environment", hint)
        text = file.string(value, f"the value of {name}", numbers=True)
        if any(ord(character) < 32 or ord(character) in (127, 0x85, 0x2028, 0x2029) for character in text):
            # A line break is legal in a process's environment, but not in an --env-file, a shell's `env` output or
            # an AzureML environment definition, so the run would differ from place to place.
            raise file.error(value, f"the value of {name} has a line break or another control character in it")
        result.append(Variable(name, text, file.origin(value)))
    return tuple(result)
