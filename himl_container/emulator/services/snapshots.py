"""The project content service: snapshots of source folders."""

from __future__ import annotations

import uuid
from typing import Any

from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.routes import Route
from himl_container.emulator.services.experiments import object_of
from himl_container.emulator.state.snapshots import Snapshots

_TEST = "tests/emulator/test_snapshots.py::"


class SnapshotService:
    """Takes snapshots and gives them back. Everybody in the workspace may read and add, and nobody changes any."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        old, new = "/content/v1.0/{ws}/snapshots", "/content/v2.0/{ws}/snapshots"
        upload, restore = f"{_TEST}test_incremental_upload", f"{_TEST}test_restore"
        return (
            Route("GET", f"{old}/latest/metadata", self._latest, "ProjectContent.GetLatestSnapshot", upload),
            Route("POST", f"{new}/getblob", self._places, "ProjectContent.GetBlobs", upload),
            Route("POST", f"{new}/{{snapshot}}", self._create, "ProjectContent.CreateSnapshot", upload),
            Route("POST", f"{new}/{{snapshot}}/zip", self._zip, "ProjectContent.GetSnapshotZip", restore),
            Route("GET", f"{old}/{{snapshot}}/metadata", self._metadata, "ProjectContent.GetMetadata", restore),
            Route("GET", f"{old}/{{snapshot}}", self._zip_old, "ProjectContent.GetSnapshotFilesZipSas", restore),
        )

    def _latest(self, request: Request) -> Answer:
        latest = self._snapshots.latest()
        if latest is None:
            return json_answer({"root": {}, "id": str(uuid.UUID(int=0))})
        return json_answer({"root": latest.tree, "id": latest.snapshot_id})

    def _metadata(self, request: Request) -> Answer:
        snapshot = self._snapshots.get(request.params["snapshot"])
        return json_answer({"root": snapshot.tree, "id": snapshot.snapshot_id})

    def _places(self, request: Request) -> Answer:
        names = request.document().get("FileNames")
        if not isinstance(names, list):
            raise Refusal(400, "UserError", "FileNames is not a list.")
        places = self._snapshots.places([str(name) for name in names])
        return json_answer({"fileNodes": [{"fullName": name, "blobUri": url} for name, url in places.items()]})

    def _create(self, request: Request) -> Answer:
        asked = request.document()
        revisions = object_of(asked.get("FileRevisionList") or {}, "FileRevisionList").get("FileNodes") or []
        if not isinstance(revisions, list):
            raise Refusal(400, "UserError", "FileNodes is not a list.")
        uploads: dict[str, str] = {}
        for revision in revisions:
            node: dict[str, Any] = object_of(revision, "A node of FileNodes")
            uploads[str(node.get("FullName") or "")] = str(node.get("BlobUri") or "")
        snapshot = self._snapshots.create(
            request.params["snapshot"], str(asked.get("ParentSnapshotId") or ""), asked.get("DirTreeNode"), uploads
        )
        return json_answer({"id": snapshot.snapshot_id, "root": snapshot.tree})

    def _zip(self, request: Request) -> Answer:
        return json_answer({"zipSasUri": self._snapshots.zip_url(request.params["snapshot"])})

    def _zip_old(self, request: Request) -> Answer:
        return json_answer(self._snapshots.zip_url(request.params["snapshot"]))
