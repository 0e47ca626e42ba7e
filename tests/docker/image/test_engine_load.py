"""What travels to a daemon, and what is left there when something goes wrong on the way."""

from __future__ import annotations

import os
from pathlib import Path

import engines
import pytest
from tiny_images import REPORTER, Interfering, Place, cutting_proxy, image, layer, unnamed

from himl_container.errors import BuildError, EngineError
from himl_container.image import engine_stream
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.model import chain_ids

pytestmark = pytest.mark.docker


def test_a_loaded_image_is_exactly_what_was_composed(place: Place) -> None:
    below = place.base()
    wanted = image(below, [layer(place.folder, f"l{n}") for n in range(3)], place.tag("1"))
    engine = place.engine
    loaded = engine.load(wanted, REPORTER)
    assert loaded.diff_ids == wanted.diff_ids
    assert loaded.tags == (place.tag("1"),)
    assert engine.bytes_sent == sum(one.size for one in wanted.layers)
    assert "PATH=/opt/himl/bin:/usr/bin:/bin" in loaded.config["Env"]
    assert loaded.labels["himl.fingerprint"] == "ab" * 32
    if place.classic:
        assert loaded.id == wanted.id
    assert set(chain_ids(wanted.diff_ids)) <= engine.known_chain_ids()


def test_a_second_load_sends_nothing(place: Place) -> None:
    wanted = image(place.base(), [layer(place.folder, "one")], place.tag("1"))
    first = place.engine.load(wanted, REPORTER)
    engine = place.engine
    assert engine.load(wanted, REPORTER) == first
    assert engine.bytes_sent == 0


def test_only_layers_that_the_daemon_lacks_travel(place: Place) -> None:
    below = place.base()
    layers = [layer(place.folder, f"l{n}") for n in range(4)]
    place.engine.load(image(below, layers, place.tag("1")), REPORTER)

    last = [*layers[:3], layer(place.folder, "l3")]
    engine = place.engine
    engine.load(image(below, last, place.tag("2")), REPORTER)
    assert engine.bytes_sent == last[3].size

    second = [layers[0], layer(place.folder, "l1"), *layers[2:]]
    engine = place.engine
    loaded = engine.load(image(below, second, place.tag("3")), REPORTER)
    # The classic store knows a layer by all that lies below it; containerd's store by its content.
    assert engine.bytes_sent == sum(one.size for one in (second[1:] if place.classic else second[1:2]))
    assert loaded.diff_ids[1:] == tuple(one.digest for one in second)


def test_a_layer_may_occur_twice(place: Place) -> None:
    twice = layer(place.folder, "same", b"same")
    loaded = place.engine.load(image(place.base(), [twice, twice], place.tag("1")), REPORTER)
    assert loaded.diff_ids[1:] == (twice.digest, twice.digest)


def test_an_image_removed_in_mid_load_costs_a_second_attempt_only(place: Place) -> None:
    below = place.base()
    layers = [layer(place.folder, f"l{n}") for n in range(2)]
    place.engine.load(image(below, layers, place.tag("1")), REPORTER)
    removed: list[str] = []

    def remove_once() -> None:
        if not removed:
            place.engine.remove_image(place.tag("1"))
            removed.append("1")

    wanted = image(below, [*layers, layer(place.folder, "l2")], place.tag("2"))
    loaded = place.engine.load(wanted, Interfering(remove_once))
    assert removed
    assert loaded.diff_ids == wanted.diff_ids


def test_without_the_image_below_nothing_is_sent(place: Place) -> None:
    below = place.base()
    place.engine.remove_image(place.tag("base"))
    wanted = image(below, [layer(place.folder, "one")], place.tag("1"))
    engine = place.engine
    with pytest.raises(EngineError, match="no longer in the daemon"):
        engine.load(wanted, REPORTER)
    assert engine.bytes_sent == 0


def test_a_rebuild_under_the_same_name_leaves_no_unnamed_image(place: Place) -> None:
    below = place.base()
    first = place.engine.load(image(below, [layer(place.folder, "one")], place.tag("1")), REPORTER)
    second = place.engine.load(image(below, [layer(place.folder, "one")], place.tag("1")), REPORTER)
    assert first.id != second.id
    assert place.engine.inspect(first.id) is None


def test_a_layer_that_vanished_from_the_cache_is_named(place: Place) -> None:
    gone = layer(place.folder, "gone")
    wanted = image(place.base(), [gone], place.tag("1"))
    gone.path.unlink()
    with pytest.raises(BuildError, match="a layer cannot be read"):
        place.engine.load(wanted, REPORTER)
    assert place.engine.inspect(place.tag("1")) is None


def test_a_connection_cut_in_mid_load_leaves_nothing(place: Place, tmp_path: Path) -> None:
    big = layer(place.folder, "big", os.urandom(8_000_000))
    wanted = image(place.base(), [big], place.tag("1"))
    before = unnamed(place.engine)
    target = Path(place.engine.endpoint.socket_path)
    with cutting_proxy(target, tmp_path, after=4_000_000) as proxy:
        engine = DockerEngine.connect({**place.environ, "DOCKER_HOST": f"unix://{proxy}"})
        with pytest.raises(EngineError, match="went away"):
            engine.load(wanted, REPORTER)
    assert place.engine.inspect(place.tag("1")) is None
    assert unnamed(place.engine) <= before


@pytest.mark.engine26
@pytest.mark.network
@pytest.mark.parametrize("containerd_store", [False, True])
def test_a_daemon_killed_in_mid_load(tmp_path: Path, containerd_store: bool) -> None:
    if engines.available():
        pytest.skip(engines.available())
    with engines.current_engine(containerd_store=containerd_store) as current:
        place = Place("killed", current.environ, tmp_path)
        wanted = image(place.base(), [layer(tmp_path, "big", os.urandom(20_000_000))], place.tag("1"))
        with pytest.raises(EngineError) as caught:
            place.engine.load(wanted, Interfering(current.kill))
        assert "daemon" in caught.value.hint


@pytest.mark.engine26
@pytest.mark.network
def test_the_classic_image_id_is_the_same_on_every_engine(machine: Place, current_classic) -> None:  # type: ignore[no-untyped-def]
    other = Place("26.1 classic", current_classic.environ, machine.folder, name=machine.name)
    one = layer(machine.folder, "one")
    ids = {place.engine.load(image(place.base(), [one], place.tag("1")), REPORTER).id for place in (machine, other)}
    other.clean()
    assert len(ids) == 1


@pytest.mark.engine26
@pytest.mark.network
def test_compressed_layers_of_a_base_stay_where_they_are(current_containerd, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """What BuildKit built or a registry sent is compressed in containerd's store; it is never sent again."""
    place = Place("26.1 containerd", current_containerd.environ, tmp_path)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY big /big\nCOPY Dockerfile /d\nENV A=b\n")
    (context / "big").write_bytes(os.urandom(300_000))
    below = place.engine.build(context, tag=place.tag("base"), reporter=REPORTER)
    one = layer(tmp_path, "one")
    for attempt in range(2):
        engine = place.engine
        wanted = image(below, [one, layer(tmp_path, "two")], place.tag(str(attempt)))
        loaded = engine.load(wanted, REPORTER)
        assert loaded.diff_ids == wanted.diff_ids
        assert engine.bytes_sent == sum(each.size for each in (wanted.layers if attempt == 0 else wanted.layers[1:]))
    place.clean()


@pytest.mark.parametrize("smallest", [1, 15_000])
def test_a_stream_of_layers_gives_the_same_image(place: Place, monkeypatch: pytest.MonkeyPatch, smallest: int) -> None:
    monkeypatch.setattr(engine_stream, "SMALLEST_PART", smallest)
    monkeypatch.setattr(engine_stream, "LARGEST_PART", smallest)
    below = place.base()
    before = unnamed(place.engine)
    wanted = image(below, [layer(place.folder, f"l{n}") for n in range(5)], place.tag("1"))
    engine = place.engine
    with engine.load_stream(below, REPORTER) as stream:
        for one in wanted.layers:
            stream.add(one)
        loaded = stream.finish(wanted)
    assert loaded.diff_ids == wanted.diff_ids
    assert engine.bytes_sent == sum(one.size for one in wanted.layers)
    assert unnamed(place.engine) <= before


def test_a_stream_given_up_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_stream, "SMALLEST_PART", 1)
    below = place.base()
    before = unnamed(place.engine)
    with pytest.raises(KeyboardInterrupt), place.engine.load_stream(below, REPORTER) as stream:
        stream.add(layer(place.folder, "one"))
        stream.add(layer(place.folder, "two"))
        raise KeyboardInterrupt
    assert unnamed(place.engine) <= before


def test_a_stream_that_breaks_is_made_good_by_the_load(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_stream, "SMALLEST_PART", 1)
    below = place.base()
    one, two = layer(place.folder, "one"), layer(place.folder, "two")
    wanted = image(below, [one, two], place.tag("1"))
    content = one.path.read_bytes()
    one.path.unlink()
    with place.engine.load_stream(below, REPORTER) as stream:
        stream.add(one)
        stream.add(two)
        one.path.write_bytes(content)
        assert stream.finish(wanted).diff_ids == wanted.diff_ids


def test_an_archive_file_is_loaded_and_named(place: Place, tmp_path: Path) -> None:
    from tiny_images import base

    from himl_container.image.base_create import write_archive

    whole = base(tmp_path, place.tag("carried"))
    write_archive(whole, tmp_path / "image.tar")
    assert place.engine.load_archive(tmp_path / "image.tar", REPORTER) == (place.tag("carried"),)
    found = place.engine.inspect(place.tag("carried"))
    assert found is not None
    assert found.diff_ids == whole.diff_ids


def test_a_file_that_is_no_archive_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not an archive" * 1000)
    with pytest.raises(EngineError, match="load the archive"):
        place.engine.load_archive(tmp_path / "x.tar", REPORTER)
