"""Whether a run, the registry, the daemon and the lock have one and the same image; if not, where they part.

What cannot be asked is "not compared", and never counts as agreeing. A registry that is set and does not have the image
does not agree; a daemon is a cache, which need not have it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from himl_container.cache import Cache
from himl_container.config.images import has_host
from himl_container.environment.model import Lock
from himl_container.errors import EngineError, InputError
from himl_container.image.engine import Engine
from himl_container.image.engine import connect as connect_daemon
from himl_container.image.fingerprint import tag_of
from himl_container.progress import Reporter
from himl_container.publish.known_names import names_of
from himl_container.publish.proof import attached_lock
from himl_container.publish.verify_compare import Held, LockFacts, compare_images, compare_lock, held
from himl_container.publish.verify_lock import project_lock
from himl_container.publish.verify_model import PARTS, Part, Parting, PartName, RunImage, Runs, Verification
from himl_container.publish.view import Connect, ImageView, daemon_view, registry_image, remote_name
from himl_container.registry.api import connect as connect_registry
from himl_container.registry.reference import parse_reference
from himl_container.settings import Settings

__all__ = ["RunImage", "Runs", "Verification", "verify"]


def verify(
    reference: str,
    settings: Settings,
    *,
    reporter: Reporter,
    runs: tuple[Runs, ...] = (),
    deep: bool = False,
    connect: Connect | None = None,
    connect_engine: Callable[[], Engine] = connect_daemon,
) -> Verification:
    """Compare the image of a run, in the registry, in the daemon, and of the lock in the working folder.

    :param reference: an image's name, a run that one of ``runs`` knows, or empty for the image of the lock.
    :param deep: also fetch each blob of the image in the registry, and hash it and what it unpacks to.
    :raises InputError: it is neither a run nor the name of an image, or the lock is damaged.
    :raises RegistryError: a registry has to be asked and does not answer.
    :raises EngineError: the daemon goes away. One that does not run is "not compared".
    """
    run = next((image for one in runs if (image := one.image_of(reference)) is not None), None) if reference else None
    lock = project_lock(settings)
    name = run.tag if run is not None else reference
    if not name:
        if lock is None:
            raise InputError(
                "there is no lock whose image could be verified",
                where=str(settings.lock_file),
                hint="Name an image or a run.",
            )
        name = tag_of(settings.image_name, lock.fingerprint)
    search = _Search(name, run, settings, connect or (lambda text: connect_registry(text, reporter=reporter)))
    search.ask_registry()
    search.ask_daemon(connect_engine)
    search.place_run()
    search.place_lock(lock)
    verification = _compared(reference or name, search, lock)
    registry = search.images.get("registry")
    if not deep or registry is None or registry.view is None:
        return verification
    from himl_container.publish.verify_deep import hash_blobs

    hashed, damaged = hash_blobs(registry.view, reporter)
    return replace(verification, hashed=hashed, partings=(*verification.partings, *damaged))


def _compared(reference: str, search: _Search, lock: LockFacts | None) -> Verification:
    found = [search.images[part] for part in PARTS if part in search.images]
    compared: list[tuple[PartName, PartName]] = []
    partings: list[Parting] = []
    for left, right in itertools.combinations(found, 2):
        compared.append((left.part, right.part))
        partings += compare_images(left, right)
    if lock is not None:
        compared += [(image.part, "lock") for image in found]
        for image in _distinct(found):
            partings += compare_lock(image, lock, search.attached() if image.part == "registry" else None)
    registry = search.parts["registry"]
    if registry.state == "missing":
        other = next((search.parts[part] for part in PARTS if search.parts[part].state == "found"), None)
        if other is not None:
            compared.append(("registry", other.part))
            partings.append(Parting(("registry", other.part), "missing", "", "", other.identity))
    return Verification(
        reference,
        parts=tuple(search.parts[part] for part in PARTS if part != "run" or search.run is not None),
        compared=tuple(compared),
        partings=tuple(partings),
        layers=_layers(found, lock),
    )


def _layers(found: Sequence[Held], lock: LockFacts | None) -> int:
    """Return how many layers the comparison speaks of: those of the images, else those that are known of the lock."""
    views = [image.view for image in found if image.view is not None]
    if len(views) > 1:
        return max(len(view.layers) for view in views)
    return len(lock.layers) if views and lock is not None else 0


def _distinct(found: Sequence[Held]) -> list[Held]:
    """Return images without those that are the same as one before; the registry's first, which says most of itself."""
    distinct: list[Held] = []
    for image in sorted(found, key=lambda one: ("registry", "daemon", "run").index(one.part)):
        if all(any(compare_images(other, image)) for other in distinct):
            distinct.append(image)
    return distinct


class _Search:
    """Asks each part for the image.

    :param name: of the image.
    """

    def __init__(self, name: str, run: RunImage | None, settings: Settings, connect: Connect) -> None:
        self.name = name
        self.run = run
        self.settings = settings
        self.connect = connect
        self.engine: Engine | None = None
        self.parts: dict[PartName, Part] = {part: Part(part, "not compared") for part in PARTS}
        self.images: dict[PartName, Held] = {}

    def ask_registry(self) -> None:
        name = remote_name(self.name, self.settings) or (self.run.digest if self.run is not None else "")
        if not has_host(name):
            self._leave("registry", "no registry is set, and the name has none")
            return
        found = self._registry(name)
        if found is None:
            self.parts["registry"] = Part("registry", "missing", name, why="it has no such image")
        else:
            self._take("registry", found, found.digest)

    def ask_daemon(self, connect_engine: Callable[[], Engine]) -> None:
        try:
            self.engine = connect_engine()
        except EngineError as error:
            self._leave("daemon", error.what)
            return
        names, cache = [self.name], Cache(self.settings.cache_dir)
        remote = self.settings.remote_name
        if not self.name.startswith("sha256:"):
            # An image has its local name here, and with the registry's address once it was pushed or pulled.
            parsed = parse_reference(self.name)
            other = {self.settings.image_name: remote, remote: self.settings.image_name}.get(parsed.repository, "")
            names += [f"{other}:{parsed.tag}"] if other and parsed.tag else []
        for name in names:
            info = self.engine.inspect(name)
            if info is not None:
                view = daemon_view(name, info, engine=self.engine, cache=cache)
                self._take("daemon", view, info.id)
                # Under these digests registries have this very image, whatever the daemon's store calls it.
                known = {name.rpartition("@")[2] for name in (*info.repo_digests, *names_of(cache, info.id))}
                self.images["daemon"] = replace(one := self.images["daemon"], ids=one.ids | known)
                return
        self._leave("daemon", "it has no image of this name")

    def place_run(self) -> None:
        """Find what the run's image is made of, where somebody still knows it: it may be another one by now."""
        if self.run is None:
            return
        digest = self.run.digest.rpartition("@")[2]
        ids = frozenset(filter(None, (self.run.id, digest)))
        if not ids:
            self._leave("run", "its record does not say which image it used")
            return
        known = next((one.view for one in self.images.values() if one.ids & ids), None)
        view = known or self._run_in_registry() or self._run_in_daemon()
        more = held("run", view).ids if view is not None else frozenset()
        self.parts["run"] = Part("run", "found", self.run.tag, digest or self.run.id)
        self.images["run"] = Held("run", ids | more, view, self.run.fingerprint, self.run.lock)

    def place_lock(self, lock: LockFacts | None) -> None:
        if lock is None:
            self._leave("lock", "there is no lock in the working folder")
        else:
            self.parts["lock"] = Part("lock", "found", str(self.settings.lock_file), lock.digest)

    def attached(self) -> Lock | None:
        """Return the lock that is attached to the image in the registry."""
        view = self.images["registry"].view
        if view is None or view.repository is None or view.manifest is None:
            return None
        return attached_lock(view.repository, view.manifest, annotations=view.annotations, labels=view.labels)

    def _run_in_registry(self) -> ImageView | None:
        digest = self.run.digest if self.run is not None else ""
        return self._registry(digest) if has_host(digest) else None

    def _run_in_daemon(self) -> ImageView | None:
        id_ = self.run.id if self.run is not None else ""
        if self.engine is None or not id_:
            return None
        info = self.engine.inspect(id_)
        cache = Cache(self.settings.cache_dir)
        return daemon_view(self.name, info, engine=self.engine, cache=cache) if info is not None else None

    def _registry(self, name: str) -> ImageView | None:
        return registry_image(name, platform=self.settings.platform, connect=self.connect)

    def _take(self, part: PartName, view: ImageView, identity: str) -> None:
        self.parts[part] = Part(part, "found", view.name, identity)
        self.images[part] = held(part, view)

    def _leave(self, part: PartName, why: str) -> None:
        self.parts[part] = Part(part, "not compared", why=why)
