"""The registry as a source of a build: whole images, layers, and what is known of layers that stay there."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.errors import RegistryError
from himl_container.image.assembly import missing_layers
from himl_container.image.engine import Engine
from himl_container.image.model import ImagePlan, Layer, LayerPlan
from himl_container.image.prepare import Prepared
from himl_container.progress import Reporter
from himl_container.publish.index_document import DamagedError, IndexEntry
from himl_container.publish.layer_facts import KnowingCache, LayerFacts, path_keys, paths_known, read_facts
from himl_container.publish.layer_index import LayerIndex
from himl_container.publish.model import Work
from himl_container.publish.pull_downloads import Downloads
from himl_container.publish.pull_model import PullLayer
from himl_container.publish.remote import Connect, RemoteImage, find_remote
from himl_container.registry.api import Repository, WrongContentError, connect
from himl_container.registry.model import Descriptor
from himl_container.settings import Settings

_AT_ONCE = 8
_LARGEST_FACTS = 32 << 20


class RegistrySource:
    """One repository, asked at most once for each thing (:class:`himl_container.image.assembly.LayerSource`).

    :param remote: what the registry has under the image's tag, where that was asked already.
    :param asked: whether it was.
    :param connect_to: how to reach other repositories.
    :param index: the layer index, where it is being fetched already.
    """

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        *,
        reporter: Reporter,
        remote: RemoteImage | None = None,
        asked: bool = False,
        connect_to: Connect = connect,
        index: Future[LayerIndex] | None = None,
    ) -> None:
        self.settings = settings
        self.repository = repository
        self.reporter = reporter
        self.remote = remote
        self.connect_to = connect_to
        self.work = Work()
        self.made: tuple[str, ...] = ()
        """Names of layers that were made for this build before the registry was asked for layers."""
        self.looked_up = asked or remote is not None
        self.seen: frozenset[str] = frozenset()
        """Digests of blobs that the registry was asked for a moment ago, and has whole."""
        self._cache = KnowingCache(Cache(settings.cache_dir))
        self._facts: dict[str, LayerFacts | None] = {}
        self._prepared_for = ""
        self._index = index

    @functools.cached_property
    def index(self) -> LayerIndex:
        """The layer index of the repository."""
        if self._index is not None:
            return self._index.result()
        return LayerIndex.fetch(self.repository, reporter=self.reporter)

    def image(self, prepared: Prepared, engine: Engine) -> bool | None:
        """Pull the image where the registry has it; whether it was tested."""
        from himl_container.publish.pull import pull_image

        if not self.looked_up:
            self.remote = find_remote(
                self.settings, prepared.fingerprint, reporter=self.reporter, repository=self.repository
            )
            self.looked_up = True
        if self.remote is None:
            return None
        found = pull_image(
            f"{self.remote.name}@{self.remote.manifest.digest}",
            engine=engine,
            cache=self._cache,
            reporter=self.reporter,
            platform=self.settings.platform,
            connect=self.connect,
            fingerprint=prepared.fingerprint,
        )
        engine.tag(found.image.id, prepared.tag)
        return self.remote.tested

    def knowing(self, prepared: Prepared) -> KnowingCache:
        """Return a cache that knows the paths of packages in layers that the registry has, so that planning can go on.

        Nothing is asked of the registry where this machine has seen all packages.
        """
        from himl_container.image.plan import plan_layers

        if self._prepared_for != prepared.fingerprint:
            self._prepared_for = prepared.fingerprint
            lock = prepared.lock
            unknown = [plan for plan in plan_layers(lock) if plan.conda and not paths_known(plan, lock, self._cache)]
            self._learn_paths(unknown, lock)
        return self._cache

    def look_ahead(self, prepared: Prepared) -> None:
        """Ask which layers of an image the registry has, before it is known which of them are to be made."""
        from himl_container.image.plan import plan_layers

        compression = self.settings.compression
        entries = [
            entry
            for plan in plan_layers(prepared.lock)
            if (entry := self.index.known(plan.key, compression)) is not None
        ]
        there = self._there(entries, compression)
        self.seen = frozenset(self._blob(entry, compression).digest for entry in entries if entry.diff_id in there)

    def bring(self, plan: ImagePlan, cache: Cache) -> None:
        """Download the layers that the store lacks and the registry has; what it does not give is told, and made."""
        missing = missing_layers(plan.layers, cache)
        found = {one.key: entry for one in missing if (entry := self._downloadable(one)) is not None}
        wanted = [one for one in missing if one.key in found]
        there = self._there([found[one.key] for one in wanted])
        wanted = [one for one in wanted if found[one.key].diff_id in there]
        self._download(wanted, found)
        self._learn_layers(wanted, found)
        left = {one.key for one in missing_layers(missing, cache)}
        made = [one.name for one in missing if one.key in left]
        got = [one.name for one in missing if one.key not in left]
        self.work = Work(_joined(self.work.made or self.made, made), _joined(self.work.downloaded, got))

    def reusable(self, plans: Sequence[LayerPlan], cache: KnowingCache, compression: str) -> dict[str, Layer]:
        """Return the layers, by key, that can stay in the registry: it has their blobs, and all is known of them.

        Their files do not exist here.
        """
        entries = {plan.key: entry for plan in plans if (entry := self.index.known(plan.key, compression))}
        there = self._there(entries.values(), compression)
        entries = {key: entry for key, entry in entries.items() if entry.diff_id in there}
        facts = self._fetched_facts([entry for entry in entries.values() if entry.facts is not None])
        layers = {}
        for plan in plans:
            entry = entries.get(plan.key)
            known = facts.get(entry.facts.digest) if entry is not None and entry.facts is not None else None
            if entry is None or known is None:
                continue
            cache.learn_files(known, entry.diff_id)
            path = cache.blob(entry.diff_id)
            layers[plan.key] = Layer(plan.name, plan.key, entry.diff_id, entry.size, entry.entries, path)
        return layers

    def _learn_paths(self, plans: Sequence[LayerPlan], lock: Lock) -> None:
        if not plans:
            return
        entries = {plan.key: self.index.like(plan.key) for plan in plans}
        facts = self._fetched_facts([entry for entry in entries.values() if entry is not None])
        for plan in plans:
            entry = entries[plan.key]
            known = facts.get(entry.facts.digest) if entry is not None and entry.facts is not None else None
            if known is not None:
                self._cache.learn_paths(known, path_keys(plan, lock))

    def _fetched_facts(self, entries: Iterable[IndexEntry]) -> dict[str, LayerFacts | None]:
        """Return the documents that entries name, by their digest; None for what is lost or damaged."""
        digests = {entry.facts.digest for entry in entries if entry.facts is not None} - self._facts.keys()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="facts") as pool:
            self._facts.update(zip(digests, pool.map(self._fetch_facts, digests), strict=True))
        return self._facts

    def _fetch_facts(self, digest: str) -> LayerFacts | None:
        try:
            return read_facts(self.repository.blob(digest, limit=_LARGEST_FACTS))
        except (DamagedError, WrongContentError):
            return None  # the packages are fetched and looked into instead
        except RegistryError:
            if self.repository.blob_exists(digest):
                raise
            return None

    def _downloadable(self, plan: LayerPlan) -> IndexEntry | None:
        entry = self.index.entry(plan.key)
        return entry if entry is not None and entry.blobs else None

    def _there(self, entries: Iterable[IndexEntry], compression: str = "") -> set[str]:
        """Return the diff ids of the entries whose blob the registry has."""
        blobs = {entry.diff_id: self._blob(entry, compression) for entry in entries}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look-up") as pool:
            found = list(pool.map(lambda blob: self.repository.blob_exists(blob.digest, blob.size), blobs.values()))
        return {diff_id for diff_id, there in zip(blobs, found, strict=True) if there}

    def _download(self, plans: Sequence[LayerPlan], entries: dict[str, IndexEntry]) -> None:
        layers = [
            PullLayer(
                plan.name,
                entries[plan.key].diff_id,
                self._blob(entries[plan.key]),
                "store" if self._cache.blob(entries[plan.key].diff_id).is_file() else "registry",
            )
            for plan in plans
        ]
        name = f"{self.repository.host}/{self.repository.name}"
        try:
            with Downloads(name, layers, self.repository, cache=self._cache, reporter=self.reporter) as downloads:
                for _ in downloads:
                    continue
        except RegistryError as error:
            self.reporter.warn(f"{name}: a layer cannot be had from the registry ({error.what}); it is made instead")

    def _learn_layers(self, plans: Sequence[LayerPlan], entries: dict[str, IndexEntry]) -> None:
        for plan in plans:
            entry = entries[plan.key]
            try:
                found = self._cache.blob(entry.diff_id).stat()
            except OSError:
                continue
            record = {
                "name": plan.name,
                "digest": entry.diff_id,
                "size": found.st_size,
                "entries": entry.entries,
                "mtime_ns": found.st_mtime_ns,
            }
            self._cache.learn_layer(plan.key, record)

    def _blob(self, entry: IndexEntry, compression: str = "") -> Descriptor:
        return entry.blobs.get(compression or self.settings.compression) or next(iter(entry.blobs.values()))

    def connect(self, name: str, **_: object) -> Repository:
        """Return a repository by its full name; the connection that there is, with its login, where it is this one."""
        if name == f"{self.repository.host}/{self.repository.name}":
            return self.repository
        return self.connect_to(name, reporter=self.reporter)


def _joined(old: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    """Return both without repetition: layers are planned a second time when packages turn out to share paths."""
    return tuple(dict.fromkeys((*old, *new)))
