"""What planning and composing must know of a layer that is only in the registry: so that it need not be there.

The plan of an image depends on the paths of all its Conda packages (two may bring one path), and its environment
variables on the activation scripts in its layers. Both are read from the packages where they are made; here they are
written down for each layer, as one small document that the layer index names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.errors import BuildError
from himl_container.image import activation, clobber
from himl_container.image.model import Layer, LayerPlan
from himl_container.image.plan import python_of
from himl_container.publish.index_document import DamagedError, pack, unpack

MEDIA_TYPE = "application/vnd.himl-container.layer-facts.v1+gzip"
ARTIFACT_TYPE = "application/vnd.himl-container.layer-facts.v1"
"""Of the artifact that refers to an image and holds the documents of its layers, lest a registry tidies them away."""

_FORMAT = 1
_KEY = re.compile(r"[0-9a-f]{64}\Z")
_ACTIVATION_FORMAT = 1
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class LayerFacts:
    """What is known of one layer.

    :param paths: of its Conda packages, by :func:`himl_container.image.clobber.memo_key`.
    :param activation: the files that activation reads: path in the image, and content as Latin-1.
    """

    paths: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    activation: Mapping[str, str] = field(default_factory=dict)


def facts_of(plan: LayerPlan, layer: Layer, lock: Lock, cache: Cache) -> LayerFacts | None:
    """Return what this machine knows of a layer; None where its file or a package's paths are no longer known."""
    paths = {}
    for key in path_keys(plan, lock):
        known = cache.read_json(*_paths_memo(key))
        if not isinstance(known, dict):
            return None
        paths[key] = known
    try:
        files = activation.find_files((layer,), cache=cache)
    except BuildError:
        return None
    texts = {path.lstrip("/"): content.decode("latin-1") for path, content in files.scripts + files.variables}
    return LayerFacts(paths, texts)


def path_keys(plan: LayerPlan, lock: Lock) -> list[str]:
    """Return the keys under which the paths of a layer's Conda packages are known."""
    python = python_of(lock.conda)
    return [clobber.memo_key(package, python) for package in plan.conda]


def paths_known(plan: LayerPlan, lock: Lock, cache: Cache) -> bool:
    """Whether a cache knows the paths of all Conda packages of a layer."""
    return all(cache.has(*_paths_memo(key)) for key in path_keys(plan, lock))


def write_facts(facts: LayerFacts) -> bytes:
    """Return the bytes of a document."""
    return pack({"format": _FORMAT, "paths": facts.paths, "activation": facts.activation})


def read_facts(data: bytes) -> LayerFacts:
    """Return what a document says.

    :raises DamagedError: it is not one of ours, or holds what it may not.
    """
    value = unpack(data)
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise DamagedError("it has another format")
    paths, files = value.get("paths"), value.get("activation")
    if not isinstance(paths, dict) or not all(map(_KEY.match, paths)) or not all(map(_is_paths, paths.values())):
        raise DamagedError("it has malformed paths")
    if not _is_texts(files) or not all(_is_latin(text) for text in files.values()):
        raise DamagedError("it has malformed files")
    return LayerFacts(paths, files)


class KnowingCache(Cache):
    """A cache that also knows what a registry says, for as long as it is used; nothing of that is written to it.

    What a registry says of packages holds for the images of that registry alone: it must not reach those of others,
    which somebody else may be able to write to.
    """

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache.root)
        self._known: dict[tuple[str, ...], Any] = {}

    def learn_paths(self, facts: LayerFacts, keys: Iterable[str]) -> None:
        """Take over the paths of those packages that are meant to be in the layer."""
        for key in keys:
            if key in facts.paths:
                self._known[_paths_memo(key)] = dict(facts.paths[key])

    def learn_files(self, facts: LayerFacts, diff_id: str) -> None:
        """Take over which activation files a layer has."""
        memo = ("memo", "activation-files", f"{diff_id.partition(':')[2]}.json")
        self._known[memo] = {"format": _ACTIVATION_FORMAT, "files": dict(facts.activation)}

    def learn_activation(self, key: str, variables: Mapping[str, str]) -> None:
        """Take over what activation scripts set."""
        self._known["memo", "activation", f"{key}.json"] = dict(variables)

    def learn_layer(self, key: str, record: Mapping[str, object]) -> None:
        """Take over what a layer's key gave, as :class:`himl_container.image.store.LayerStore` keeps it."""
        self._known["layers", f"{key}.json"] = dict(record)

    def has(self, *parts: str) -> bool:
        """Whether the cache has something, or the registry said something."""
        return parts in self._known or super().has(*parts)

    def read_json(self, *parts: str) -> Any:
        """Return what the cache has, else what the registry said."""
        own = super().read_json(*parts)
        return self._known.get(parts) if own is None else own

    def write_json(self, value: Any, *parts: str) -> None:
        """Keep a value in the cache; but what a registry said that a layer's key gave stays here."""
        if parts[0] == "layers" and parts in self._known:
            self._known[parts] = value
        else:
            super().write_json(value, *parts)


def _paths_memo(key: str) -> tuple[str, str, str]:
    return ("memo", "paths", f"{key}.json")


def _is_paths(value: object) -> TypeGuard[dict[str, str]]:
    return _is_texts(value) and all(0 < len(path) <= _LONGEST_PATH for path in value)


def _is_texts(value: object) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_latin(text: str) -> bool:
    return all(ord(character) < 256 for character in text)
