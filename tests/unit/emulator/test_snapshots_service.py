from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.history_rig import Rig

from himl_container.emulator.blobs import SNAPSHOTS_CONTAINER
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.snapshot_tree import MAX_FILES

NEW = "content/v2.0:/snapshots"
OLD = "content/v1.0:/snapshots"
NOBODY = str(uuid.UUID(int=0))

Tree = Mapping[str, "bytes | Tree"]


def node(name: str, content: bytes | Tree) -> dict[str, Any]:
    children = {} if isinstance(content, bytes) else {key: node(key, value) for key, value in content.items()}
    kind = "File" if isinstance(content, bytes) else "Directory"
    digest = str(hash(content)) if isinstance(content, bytes) else None
    return {"name": name, "type": kind, "hash": digest, "timestamp": "2026-01-01T00:00:00", "children": children}


def flat(tree: Tree, above: str = "") -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, content in tree.items():
        files |= {above + name: content} if isinstance(content, bytes) else flat(content, f"{above}{name}/")
    return files


def upload(rig: Rig, files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Put files where the service says, as the SDK does, and return what it then tells of them."""
    nodes = rig.json("POST", f"{NEW}/getblob", {"FileNames": list(files)})["fileNodes"]
    for one in nodes:
        name = one["blobUri"].partition("?")[0].partition(f"/{SNAPSHOTS_CONTAINER}/")[2]
        rig.blobs.put(SNAPSHOTS_CONTAINER, name, files[one["fullName"]])
    return [{"FullName": one["fullName"], "BlobUri": one["blobUri"], "FileSize": 1} for one in nodes]


def body(tree: Tree, nodes: list[dict[str, Any]], parent: str = NOBODY) -> dict[str, Any]:
    return {"ParentSnapshotId": parent, "DirTreeNode": node("", tree), "FileRevisionList": {"FileNodes": nodes}}


def take(rig: Rig, tree: Tree, parent: str = NOBODY, known: Tree | None = None) -> str:
    files = {path: data for path, data in flat(tree).items() if flat(known or {}).get(path) != data}
    snapshot = str(uuid.uuid4())
    rig.json("POST", f"{NEW}/{snapshot}", body(tree, upload(rig, files), parent))
    return snapshot


FIRST: Tree = {"train.py": b"print(1)", "pkg": {"a.py": b"a", "empty": {}, "deep": {"b ä%.py": b"b"}}}


def test_a_snapshot_is_laid_out_as_it_was(tmp_path: Path) -> None:
    rig = Rig()
    snapshot = take(rig, FIRST)
    rig.snapshots.unpack(snapshot, tmp_path / "wd")
    found = {str(path.relative_to(tmp_path / "wd")): path for path in (tmp_path / "wd").rglob("*")}
    assert {name: path.read_bytes() for name, path in found.items() if path.is_file()} == flat(FIRST)
    assert found["pkg/empty"].is_dir()
    assert rig.snapshots.get(snapshot).size == 10


def test_many_files_come_by_one_zip_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    tree: Tree = {f"d{number % 3}-{number}": {"f ä": str(number).encode() * number} for number in range(20)}
    snapshot = take(rig, tree)
    rig.snapshots.unpack(snapshot, tmp_path / "first")
    streamed = []
    stream = rig.blobs.stream
    monkeypatch.setattr(rig.blobs, "stream", lambda *name: streamed.append(name) or stream(*name))
    rig.snapshots.unpack(snapshot, tmp_path / "second")
    assert streamed == [(SNAPSHOTS_CONTAINER, f"zips/{snapshot}.zip")]
    for name in ("first", "second"):
        base = tmp_path / name
        assert {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()} == flat(tree)


def test_unchanged_files_come_from_the_parent(tmp_path: Path) -> None:
    rig = Rig()
    assert rig.json("GET", f"{OLD}/latest/metadata") == {"root": {}, "id": NOBODY}
    first = take(rig, FIRST)
    latest = rig.json("GET", f"{OLD}/latest/metadata")
    assert latest["id"] == first
    assert latest["root"] == node("", FIRST)
    blobs = len(rig.blobs.content[SNAPSHOTS_CONTAINER])
    changed = {**FIRST, "train.py": b"print(2)", "new.py": b"new"}
    second = take(rig, changed, first, FIRST)
    assert len(rig.blobs.content[SNAPSHOTS_CONTAINER]) == blobs + 2
    third = take(rig, {"pkg": FIRST["pkg"]}, second, changed)
    for snapshot, tree in ((first, FIRST), (second, changed), (third, {"pkg": FIRST["pkg"]})):
        rig.snapshots.unpack(snapshot, tmp_path / snapshot)
        there = {
            str(p.relative_to(tmp_path / snapshot)): p.read_bytes()
            for p in (tmp_path / snapshot).rglob("*")
            if p.is_file()
        }
        assert there == flat(tree)


def test_what_was_not_uploaded_is_refused() -> None:
    rig = Rig()
    first = take(rig, FIRST)
    nodes = upload(rig, {"x.py": b"x"})
    place = nodes[0]["BlobUri"]
    there = rig.blobs.content[SNAPSHOTS_CONTAINER]
    empty = rig.json("POST", f"{NEW}/getblob", {"FileNames": ["x.py"]})["fileNodes"][0]["blobUri"]
    zipped = rig.snapshots.zip_url(first)
    for uri in (
        empty,  # a place was asked for, and nothing put there
        place.replace("account.", "other."),
        place.replace("/snapshots/", "/azureml/"),
        place.replace("/uploads/", "/uploads/../"),
        zipped,
        "",
        "file:///etc/passwd",
    ):
        request = body({"x.py": b"x"}, [{"FullName": "x.py", "BlobUri": uri}])
        assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", request) == 400, uri
    # Neither uploaded nor in the parent, or in the parent with another content.
    assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", body({"y.py": b"y"}, nodes[:0], first)) == 400
    assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", body({"train.py": b"other"}, [], first)) == 400
    assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", body(FIRST, [], str(uuid.uuid4()))) == 400
    # Uploaded, and not in the tree.
    assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", body({}, nodes)) == 400
    assert rig.snapshots.latest() == rig.snapshots.get(first)
    assert len(there) == 5


@pytest.mark.parametrize("name", ["..", "../x", "/x", "a/b", "a\0", "", ".", "x" * 256, "a\\b", "C:x"])
def test_names_that_lead_out(name: str) -> None:
    rig = Rig()
    for content in (b"x", {"f": b"x"}):
        request = body({name: content}, [])
        assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", request) == 400
        nested = body({"a": {name: content}}, [])
        assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", nested) == 400
    if name != "a/b":
        assert rig.status("POST", f"{NEW}/getblob", {"FileNames": [name]}) == 400


def test_trees_that_are_none() -> None:
    rig = Rig()
    link = {"name": "a", "type": "SymbolicLink", "children": {}}
    deep: dict[str, Any] = node("", {})
    for _ in range(150):
        deep = {**node("a", {}), "children": {"a": deep}}
    for tree in (
        None,
        [],
        {"children": []},
        {"children": {"a": 1}},
        {"children": {"a": link}},
        {"children": {"a": {**link, "name": "b", "type": "File"}}},
        {"children": {"a": {**link, "type": "File", "children": {"b": {}}}}},
        deep,
    ):
        request = {"ParentSnapshotId": NOBODY, "DirTreeNode": tree, "FileRevisionList": {"FileNodes": []}}
        assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", request) == 400
    many = body({f"d{number}": {} for number in range(MAX_FILES + 1)}, [])
    assert rig.status("POST", f"{NEW}/{uuid.uuid4()}", many) == 400
    assert rig.status("POST", f"{NEW}/getblob", {"FileNames": ["a"] * (MAX_FILES + 1)}) == 400
    assert rig.status("POST", f"{NEW}/getblob", {"FileNames": ["a", "a"]}) == 400
    assert rig.status("POST", f"{NEW}/getblob", {"FileNames": "a"}) == 400
    assert rig.status("POST", f"{NEW}/not-a-guid", body({}, [])) == 400
    assert rig.status("POST", f"{NEW}/{uuid.uuid4()}/zip") == 404
    assert rig.snapshots.latest() is None


def test_an_id_is_taken_once_and_a_retry_changes_nothing() -> None:
    rig = Rig()
    snapshot = str(uuid.uuid4())
    nodes = upload(rig, {"x.py": b"x"})
    for _ in range(2):
        assert rig.status("POST", f"{NEW}/{snapshot}", body({"x.py": b"x"}, nodes)) == 200
    assert rig.status("POST", f"{NEW}/{snapshot}", body({}, [])) == 409
    assert set(rig.snapshots.get(snapshot.upper()).files) == {"x.py"}


def test_the_zip_is_made_once_and_holds_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    snapshot = take(rig, FIRST)
    url = rig.json("POST", f"{NEW}/{snapshot}/zip")["zipSasUri"]
    name = url.partition("?")[0].partition(f"/{SNAPSHOTS_CONTAINER}/")[2]
    with zipfile.ZipFile(io.BytesIO(rig.blobs.content[SNAPSHOTS_CONTAINER][name])) as archive:
        assert archive.testzip() is None
        files = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
        assert files == flat(FIRST)
        assert {"pkg/", "pkg/empty/", "pkg/deep/"} <= set(archive.namelist())
    monkeypatch.setattr(rig.blobs, "put", lambda *_: pytest.fail("made twice"))
    assert rig.json("POST", f"{NEW}/{snapshot}/zip")["zipSasUri"] == url


def test_the_zip_goes_out_in_pieces() -> None:
    rig = Rig()
    import random

    noise = random.Random(1).randbytes(3 << 20)
    snapshot = take(rig, {f"f{number}": noise for number in range(3)})
    pieces = []

    def put(container: str, name: str, data: Any) -> None:
        pieces.extend(len(piece) for piece in data)

    rig.blobs.put = put  # type: ignore[method-assign]
    rig.snapshots.zip_url(snapshot)
    assert len(pieces) >= 9
    assert max(pieces) < 2 << 20


def test_links_in_the_folder_are_not_followed(tmp_path: Path) -> None:
    rig = Rig()
    snapshots = [take(rig, {"pkg": {f"{number}.py": b"a" for number in range(many)}}) for many in (1, 20)]
    outside = tmp_path / "outside"
    outside.mkdir()
    for number, snapshot in enumerate(snapshots):
        for trap, target in (("pkg", outside), ("pkg/0.py", outside / "0.py")):
            folder = tmp_path / f"{number}{len(trap)}"
            (folder / trap).parent.mkdir(parents=True)
            (folder / trap).symlink_to(target)
            with pytest.raises(Refusal):
                rig.snapshots.unpack(snapshot, folder)
    assert list(outside.iterdir()) == []


NAMES = st.text(min_size=1, max_size=6) | st.text(alphabet="./\\", max_size=4)
TREES = st.recursive(st.binary(max_size=4), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)


@given(st.dictionaries(NAMES, TREES, max_size=3))
def test_any_tree_is_laid_out_below_its_folder_or_refused(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    rig = Rig()
    folder = tmp_path_factory.mktemp("tree")
    try:
        snapshot = take(rig, tree)
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        rig.snapshots.unpack(snapshot, folder / "a" / "wd")
        files = {
            str(path.relative_to(folder / "a/wd")): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        assert files == flat(tree)
