"""Whatever is sent to run history, metrics, artifacts and snapshots is answered or refused, and stays in its place."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.emulator.history_rig import USER, WORKSPACE, Rig, job

from himl_container.emulator.blobs import RUNS_CONTAINER, SNAPSHOTS_CONTAINER
from himl_container.emulator.http import Answer, Refusal

WORDS = st.sampled_from(
    ["..", "../../etc/passwd", "/etc", "", ".", "a\0b", "null", "r1", "dcid.r1", "x" * 1100, "\ud800", "%2e%2e"]
)
TEXTS = WORDS | st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "runId parentRunId status tags properties displayName description name runType runTypeV2 hidden runDefinition "
    "inputDatasets outputDatasets runs events data filter top orderby continuationToken viewType archive paths values "
    "value columns metricName startTime endTime cells schema FileNames DirTreeNode FileRevisionList ParentSnapshotId "
    "containerUri prefix artifactPrefix selectRunMetadata selectRunDefinition"
)
NAMES = st.sampled_from(KEYS.split())
ITEMS = st.dictionaries(st.sampled_from(["runId", "path", "name", "data", "FullName", "BlobUri"]), JSON, max_size=4)
ONE = st.builds(lambda name, value: {name: value}, NAMES, TEXTS | ITEMS)
BODIES = ONE | st.dictionaries(NAMES, JSON | st.lists(ITEMS, max_size=2), max_size=5) | JSON
SEGMENTS = TEXTS.map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))


def test_nothing_is_faulty() -> None:
    rig = Rig()
    rig.run()
    rig.run("other")
    rig.artifacts.upload("other", "secret.txt", b"secret")
    routes = rig.router.routes

    @settings(max_examples=400, deadline=None)
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        route = data.draw(st.sampled_from(routes))
        path = route.pattern.replace("{ws}", WORKSPACE.path)
        while "{" in path:
            before, _, rest = path.partition("{")
            name, _, after = rest.partition("}")
            known = {"run": "r1", "experiment": "e", "container": "dcid.r1", "origin": "ExperimentRun"}.get(name)
            fitting = st.just(known) if known and data.draw(st.booleans()) else SEGMENTS
            path = before + data.draw(fitting) + after
        for name in ("$filter", "$top", "continuationToken", "append"):
            if data.draw(st.booleans()):
                path += ("&" if "?" in path else "?") + f"{name}={data.draw(SEGMENTS)}"
        body: Any = data.draw(BODIES)
        identity = data.draw(st.sampled_from([USER, job("r1")]))
        service, _, rest = path.lstrip("/").partition(f"/{WORKSPACE.path}/")
        try:
            answer = rig.ask(route.method, f"{service}:/{rest}", body, identity)
        except Refusal as refusal:
            assert 400 <= refusal.status < 500
            assert isinstance(refusal.answer(), Answer)
        else:
            assert 200 <= answer.status < 300
            text = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
            if identity is not USER:
                assert b"secret.txt" not in text
            if "json" in answer.headers.get("content-type", ""):
                json.loads(text)

    ask()
    for container, names in rig.blobs.content.items():
        assert container in (RUNS_CONTAINER, SNAPSHOTS_CONTAINER)
        assert not [name for name in names if ".." in name.split("/") or name.startswith("/") or "\0" in name]
