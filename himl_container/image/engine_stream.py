"""Loading an image while its layers are still being made.

A daemon takes an archive in two phases: it copies the archive to its own disk, then it unpacks layer after layer. Both
take seconds for each gigabyte, and nothing in the Engine API makes one of them go away. So the layers go out in parts:
each part is an archive of an unnamed image of all layers so far, which contains the layers that are new. While the
daemon unpacks one part, the next is copied, and the layers after that are made. The end of an archive is held back
until the part before it is unpacked, because its layers build upon those.

All this only makes the final :meth:`~himl_container.image.engine_load.Loader.load` find more layers in place. So a part
that fails ends the streaming and nothing else: that load sends what is missing, and tells what is wrong.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from himl_container.errors import HimlError
from himl_container.image.archive import Shipment
from himl_container.image.compose import image_file
from himl_container.image.engine_load import Destination, Loader
from himl_container.image.model import ComposedImage, ImageInfo, Layer, next_chain
from himl_container.image.tar_stream import file_entry
from himl_container.progress import Reporter, Task

SMALLEST_PART = 256 << 20
"""Bytes of layers below which a part is not worth the tenths of a second that one more image costs the daemon."""

LARGEST_PART = 512 << 20
"""Bytes of layers after which a part is ended, so that the daemon can begin to unpack (one layer may be larger)."""


class LoadStream:
    """One image on its way into a daemon. Use it as a context; leaving it removes the images of the parts.

    :param below: the image below our layers.
    :param name: called with the loaded image's id; gives it its name and returns what the daemon says of it.
    """

    def __init__(
        self, loader: Loader, below: ImageInfo, name: Callable[[str, ComposedImage], ImageInfo], reporter: Reporter
    ) -> None:
        self._loader = loader
        self._below = below
        self._name = name
        self._reporter = reporter
        self._destination: Destination | None = None
        self._changed = threading.Condition()
        self._layers: list[Layer] = []
        self._chain = below.rootfs
        self._missing: list[tuple[int, Layer]] = []
        self._complete = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._part_ids: list[str] = []

    def __enter__(self) -> LoadStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for id_ in self._part_ids:
            with contextlib.suppress(HimlError):  # a daemon that is gone has been told of, or keeps the layers
                self._loader.discard(id_)

    def add(self, layer: Layer) -> None:
        """Hand over a layer of the image, in the image's order. Never waits for the daemon to take it.

        :raises EngineError: the daemon does not answer, or lacks the image below.
        """
        if self._destination is None:
            self._destination = self._loader.destination(self._below.diff_ids)
        self._chain = next_chain(self._chain, layer.digest)
        with self._changed:
            self._layers.append(layer)
            if self._destination.lacks(layer, self._chain):
                self._missing.append((len(self._layers), layer))
            if self._thread is None and self._size() >= SMALLEST_PART:
                self._thread = threading.Thread(target=self._send_parts, args=(self._destination,), daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def finish(self, image: ComposedImage) -> ImageInfo:
        """Complete the image, all of whose layers have been added, and return it under its name.

        :raises EngineError: as :meth:`himl_container.image.engine.Engine.load`.
        """
        with self._changed:
            self._complete = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        # What was asked before the layers is still so, unless parts have been sent since.
        destination = self._destination if self._thread is None else None
        return self._name(self._loader.load(image, self._reporter, destination), image)

    def _size(self) -> int:
        return sum(layer.size for _, layer in self._missing)

    def _send_parts(self, destination: Destination) -> None:
        parts: list[_Part] = []
        with contextlib.suppress(_StoppedError), self._reporter.step("load", "layers", unit="bytes") as task:
            while not self._stopped:
                count, layers = self._next_part()
                if not layers or any(part.done.is_set() and part.failed for part in parts):
                    break
                before = parts[-1] if parts else None
                if len(parts) > 1:
                    parts[-2].done.wait()  # two parts at a time: what is copied ahead lies on the daemon's disk
                image = self._image(count)
                part = _Part(self, image, destination.archive(image, layers), before, task)
                parts.append(part)
                part.start()
                part.copied.wait()
            for part in parts:
                part.join()
        self._part_ids = [part.id for part in parts]

    def _next_part(self) -> tuple[int, tuple[Layer, ...]]:
        """Wait until there is enough for a part and take it: how many layers the image has then, and which are new."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._complete or self._size() >= SMALLEST_PART)
            if self._stopped or self._size() < SMALLEST_PART:
                return 0, ()
            count, size, taken = 0, 0, []
            while self._missing and size < LARGEST_PART:
                count, layer = self._missing.pop(0)
                size += layer.size
                taken.append(layer)
            return count, tuple(taken)

    def _image(self, count: int) -> ComposedImage:
        layers = tuple(self._layers[:count])
        diff_ids = self._below.diff_ids + tuple(layer.digest for layer in layers)
        labels = {"Labels": {"himl.role": "unfinished"}}  # what a kill leaves behind can be recognised by it
        config = image_file(config=labels, architecture=self._below.architecture, diff_ids=diff_ids, history=[])
        return ComposedImage(config=config, diff_ids=diff_ids, layers=layers, tag="")

    def check(self) -> None:
        """End the sending of a part when the stream is not wanted any more."""
        if self._stopped:
            raise _StoppedError

    def send(self, chunks: Iterator[bytes]) -> None:
        """Send one part's archive and wait until the daemon has unpacked it."""
        self._loader.post(chunks)

    def arrived(self, id_: str, image: ComposedImage) -> None:
        """Remember what the daemon has now."""
        if self._destination is not None:
            self._loader.keep(id_, image, self._destination)

    def count(self, amount: int) -> None:
        """Count bytes that went out."""
        self._loader.sent += amount


class _StoppedError(Exception):
    """The stream is not wanted any more."""


class _Part(threading.Thread):
    """One archive on its way.

    ``copied`` is set when all its layers are out, ``done`` when the daemon has unpacked it, or it failed.
    """

    def __init__(
        self,
        stream: LoadStream,
        image: ComposedImage,
        shipment: Shipment,
        before: _Part | None,
        task: Task,
    ) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._image = image
        self._shipment = shipment
        self._before = before
        self._task = task
        self.copied = threading.Event()
        self.done = threading.Event()
        self.failed = True

    @property
    def id(self) -> str:
        """The id of the part's image."""
        return self._shipment.id

    def run(self) -> None:
        """Send the archive."""
        try:
            with contextlib.suppress(HimlError, _StoppedError):
                self._stream.send(self._chunks())
                self._stream.arrived(self.id, self._image)
                self.failed = False
        finally:
            self.copied.set()
            self.done.set()

    def _chunks(self) -> Iterator[bytes]:
        for layer in self._shipment.layers:
            self._task.note(layer.name)
            name = self._shipment.layer_name(layer)
            for chunk in file_entry(name, layer.path, layer.size, self._passed):
                self._stream.check()
                yield chunk
        self.copied.set()
        if self._before is not None:
            self._before.done.wait()
            if self._before.failed:
                raise _StoppedError
        self._stream.check()
        yield self._shipment.description()

    def _passed(self, amount: int) -> None:
        self._stream.count(amount)
        self._task.advance(amount)
