"""What differs between two images, or between an image and a lock: by package, by layer, by file.

Layers with one digest have one content, so only those that differ are read, and only the paths in them are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from himl_container.cache import Cache
from himl_container.environment.diff import Difference, lock_diff
from himl_container.environment.model import Lock
from himl_container.errors import InputError
from himl_container.image.engine import Engine
from himl_container.image.engine import connect as connect_daemon
from himl_container.image.plan import plan_layers
from himl_container.progress import Reporter
from himl_container.publish.contents import Contents, Export, daemon_export
from himl_container.publish.listing import Listing
from himl_container.publish.proof import attached_lock
from himl_container.publish.view import Connect, ImageView, LayerView, find_view, settings_between
from himl_container.registry.api import connect as connect_registry
from himl_container.settings import Settings

_NO_CONTENT = frozenset({"folder", "opaque"})


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared.

    :param source: ``registry``, ``daemon`` or ``lock`` (a lock file, which is no image yet).
    :param lock: the lock file's, or the one that is attached to the image; None where none is.
    """

    name: str
    source: str
    digest: str = ""
    image: ImageView | None = field(default=None, compare=False)
    lock: Lock | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LayerDifference:
    """A layer that is not the same in both.

    :param old, new: diff ids (keys of the plans between locks); empty where it was or is not there.
    :param old_size, new_size: bytes in the registry; None where unknown.
    """

    name: str
    old: str
    new: str
    old_size: int | None = None
    new_size: int | None = None

    @property
    def change(self) -> Literal["added", "removed", "changed"]:
        """What became of it."""
        return "added" if not self.old else "removed" if not self.new else "changed"


@dataclass(frozen=True)
class FileChanges:
    """What became of the files of one package. Folders are not counted.

    :param package: ``conda numpy``, ``pip torch``, ``deb libc6``; the layer's name for a file that no package claims.
    :param bytes_added: of the files that were added, and of those that changed as they are now.
    :param bytes_removed: of the files that were removed, and of those that changed as they were.
    """

    package: str
    added: int = 0
    removed: int = 0
    changed: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0


@dataclass(frozen=True)
class ImageDiff:
    """What differs between two images.

    :param packages: in the order of :func:`himl_container.environment.diff.lock_diff`.
    :param packages_from: ``locks``; ``layers`` where an image has no lock attached and the records of packages in the
        layers that differ were read instead; empty where neither was.
    :param same_layers: number of layers that both have.
    :param settings: names of what differs in the images' settings (``Env PATH``, ``Cmd``); values may be secret.
    :param files: None where files were not compared: one of the two is a lock, or only the rest was asked for.
    """

    old: Side
    new: Side
    packages: tuple[Difference, ...]
    packages_from: Literal["locks", "layers", ""]
    layers: tuple[LayerDifference, ...]
    same_layers: int
    settings: tuple[str, ...] = ()
    files: tuple[FileChanges, ...] | None = None

    @property
    def identical(self) -> bool:
        """Whether nothing differs of what was compared."""
        return not (self.packages or self.layers or self.settings)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        sides = {
            key: {"name": side.name, "source": side.source, "digest": side.digest}
            for key, side in (("old", self.old), ("new", self.new))
        }
        return {
            **sides,
            "identical": self.identical,
            "packages_from": self.packages_from,
            "packages": [{**asdict(one), "change": one.change} for one in self.packages],
            "layers": [{**asdict(one), "change": one.change} for one in self.layers],
            "same_layers": self.same_layers,
            "settings": list(self.settings),
            "files": None if self.files is None else [asdict(one) for one in self.files],
        }


def diff_images(
    old: str,
    new: str,
    settings: Settings,
    *,
    reporter: Reporter,
    files: bool = True,
    connect: Connect | None = None,
    connect_engine: Callable[[], Engine] = connect_daemon,
    export: Export = daemon_export,
) -> ImageDiff:
    """Return what differs between two images, or locks.

    :param old, new: a name of an image, in a registry or the daemon; the path of a lock file; ``.`` for the lock of
        the settings.
    :param files: compare the files too, for which the layers that differ are read.
    :raises InputError: there is no such image or lock, or a lock is compared with an image that has none attached.
    :raises RegistryError, EngineError: what has to be asked does not answer, or a layer is damaged.
    """

    def side(text: str) -> Side:
        repositories = connect or (lambda name: connect_registry(name, reporter=reporter))
        return _side(text, settings, repositories, connect_engine)

    before, after = side(old), side(new)
    if before.image is None or after.image is None:
        return _diff_locks(before, after)
    contents = Contents(Cache(settings.cache_dir), export, reporter)
    return _diff_images(before, after, contents if files else None)


def _side(text: str, settings: Settings, connect: Connect, connect_engine: Callable[[], Engine]) -> Side:
    from himl_container.environment.lockfile import read_lock

    path = settings.lock_file if text == "." else Path(text)
    if text == "." or (path.suffix == ".toml" and path.is_file()):
        return Side(str(path), "lock", lock=read_lock(path))
    image = find_view(text, settings, connect=connect, connect_engine=connect_engine)
    lock = None
    if image.repository is not None and image.manifest is not None:
        lock = attached_lock(image.repository, image.manifest, annotations=image.annotations, labels=image.labels)
    return Side(image.name, image.source, image.digest or image.config_digest, image, lock)


def _diff_locks(old: Side, new: Side) -> ImageDiff:
    """Compare two locks; what each would have as layers is planned from it."""
    for side in (old, new):
        if side.lock is None:
            hint = "Images that were pushed with their lock can be compared with one; two images always can."
            raise InputError("no lock is attached to the image", where=side.name, hint=hint)
    assert old.lock is not None and new.lock is not None
    plans = ({plan.name: plan.key for plan in plan_layers(lock)} for lock in (old.lock, new.lock))
    before, after = plans
    names = [*before, *(name for name in after if name not in before)]
    layers = [
        LayerDifference(name, before.get(name, ""), after.get(name, ""))
        for name in names
        if before.get(name) != after.get(name)
    ]
    return ImageDiff(old, new, lock_diff(old.lock, new.lock), "locks", tuple(layers), len(names) - len(layers))


def _diff_images(old: Side, new: Side, contents: Contents | None) -> ImageDiff:
    assert old.image is not None and new.image is not None
    before, after = _without(old.image, new.image), _without(new.image, old.image)
    layers = _layer_differences(before, after)
    same = len(old.image.layers) - len(before)
    listings = (contents.listing(old.image, before), contents.listing(new.image, after)) if contents else None
    packages, source = _packages(old, new, listings)
    changes = file_changes(*listings, fallback=_names(before, after)) if listings else None
    return ImageDiff(
        old,
        new,
        packages,
        source,
        layers,
        same,
        settings=settings_between(old.image, new.image),
        files=changes,
    )


def _packages(
    old: Side, new: Side, listings: tuple[Listing, Listing] | None
) -> tuple[tuple[Difference, ...], Literal["locks", "layers", ""]]:
    if old.lock is not None and new.lock is not None:
        return lock_diff(old.lock, new.lock), "locks"
    return (_recorded(*listings), "layers") if listings else ((), "")


def _without(image: ImageView, other: ImageView) -> tuple[LayerView, ...]:
    """Return the layers that the other image does not have."""
    known = {layer.identity for layer in other.layers}
    return tuple(layer for layer in image.layers if layer.identity not in known)


def _layer_differences(old: Sequence[LayerView], new: Sequence[LayerView]) -> tuple[LayerDifference, ...]:
    """Return what became of each layer; layers of one name are taken for one that has changed."""
    before, after = {layer.name: layer for layer in old}, {layer.name: layer for layer in new}
    found = []
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        found.append(
            LayerDifference(
                name,
                was.identity if was else "",
                now.identity if now else "",
                was.blob.size if was and was.blob else None,
                now.blob.size if now and now.blob else None,
            )
        )
    return tuple(found)


def _names(old: Sequence[LayerView], new: Sequence[LayerView]) -> str:
    names = dict.fromkeys(layer.name for layer in (*old, *new))
    return next(iter(names)) if len(names) == 1 else "no package"


def _recorded(old: Listing, new: Listing) -> tuple[Difference, ...]:
    """Return the packages that differ by their own records in the layers that differ."""
    return tuple(
        Difference(package.kind, package.name, old.versions.get(package, ""), new.versions.get(package, ""))
        for package in sorted({*old.versions, *new.versions})
        if old.versions.get(package) != new.versions.get(package)
    )


def file_changes(old: Listing, new: Listing, *, fallback: str = "no package") -> tuple[FileChanges, ...]:
    """Return what became of files, by package, the package with the most bytes first.

    :param fallback: what the files are counted under that no package claims.
    """
    counts: dict[str, list[int]] = {}
    for path in {*old.facts, *new.facts}:
        was, now = old.facts.get(path), new.facts.get(path)
        if was == now or {fact.kind for fact in (was, now) if fact} <= _NO_CONTENT:
            continue
        # A path that a layer takes away is not there, whichever of the layers below had it.
        gone, there = now is None or now.kind == "whiteout", was is not None and was.kind != "whiteout"
        owner = new.owners.get(path) or old.owners.get(path)
        row = counts.setdefault(f"{owner.kind} {owner.name}" if owner else fallback, [0, 0, 0, 0, 0])
        row[1 if gone else 2 if there else 0] += 1
        row[3] += now.size if now else 0
        row[4] += was.size if was else 0
    found = [FileChanges(package, *row) for package, row in counts.items()]
    return tuple(sorted(found, key=lambda one: (-(one.bytes_added + one.bytes_removed), one.package)))
