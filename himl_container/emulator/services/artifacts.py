"""The artifact service: names of files and signed addresses. Their bytes go between the client and the blob storage."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from himl_container.emulator.access import Access
from himl_container.emulator.blobs import RUNS_CONTAINER, Blobs
from himl_container.emulator.data.shared_files import SharedFiles
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.routes import Route
from himl_container.emulator.services.experiments import object_of
from himl_container.emulator.state.artifacts import RUN_ORIGIN, Artifact, Artifacts, artifact_path, blob_name
from himl_container.emulator.state.paths import checked_prefix
from himl_container.emulator.state.run import iso

WRITE = "racw"
"""What a client may do with the address of a file that it is to upload: append to logs and look at the size, too."""

_PAGE = 1000
_MAX_BATCH = 1000
_MAX_CONTENT = 32 << 20
"""Bytes that may be posted to the service itself, which is for small texts."""

_TEST = "tests/emulator/test_files.py::"


class ArtifactService:
    """Answers for the files of runs, and for files without a run, which belong to users.

    A job sees and changes the files of its own run and of that run's descendants.

    :param shared: which other files a job may see (those of models), and where it may upload files without a run.
    """

    def __init__(self, artifacts: Artifacts, blobs: Blobs, access: Access, shared: SharedFiles | None = None) -> None:
        self._artifacts, self._blobs, self._access, self._shared = artifacts, blobs, access, shared

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base = "/artifact/v2.0/{ws}/artifacts"
        place, file = "{origin}/{container}", "{origin}/{container}/{path*}"
        up, down, names = f"{_TEST}test_upload_and_download", f"{_TEST}test_folders", f"{_TEST}test_listing_pages"
        content, deleted = f"{_TEST}test_content", f"{_TEST}test_deleted"
        ingest = "only by users; blobs of the workspace's own storage are copied"
        return (
            Route("POST", f"{base}/batch/metadata/{place}", self._create, "Artifacts.BatchCreateEmpty", up),
            Route(
                "POST",
                f"{base}/batch/ingest/containersas/{place}",
                self._ingest,
                "Artifacts.BatchIngestFromSas",
                f"{_TEST}test_ingest",
                how="approximated",
                note=ingest,
            ),
            Route("DELETE", f"{base}/batch/{place}", self._delete_all, "Artifacts.DeleteInContainer", deleted),
            Route("GET", f"{base}/prefix/contentinfo/{file}", self._below, "Artifacts.ListSasByPrefix", down),
            Route("GET", f"{base}/contentinfo/{file}", self._info, "Artifacts.GetContentInformation", up),
            Route("GET", f"{base}/write/{file}", self._write, "Artifacts.GetWriteSas", content),
            Route("GET", f"{base}/content/{file}", self._read_content, "Artifacts.Download", content),
            Route("POST", f"{base}/content/{file}", self._write_content, "Artifacts.Upload", content),
            Route("GET", f"{base}/metadata/{file}", self._metadata, "Artifacts.Get", deleted),
            Route("DELETE", f"{base}/metadata/{file}", self._delete, "Artifacts.Delete", deleted),
            Route("GET", f"{base}/{place}", self._list, "Artifacts.ListInContainer", names),
            Route("GET", f"{base}/{file}", self._list, "Artifacts.ListInPath", names),
        )

    # --- new files ---

    def _create(self, request: Request) -> Answer:
        origin, container = self._place(request, writing=True)
        paths = request.document().get("paths")
        if not isinstance(paths, list) or len(paths) > _MAX_BATCH:
            raise Refusal(400, "UserError", f"paths is not a list of at most {_MAX_BATCH}.")
        asked = [str(object_of(item, "path").get("path") or "") for item in paths]
        for path in asked:
            artifact_path(path)
        made: dict[str, Any] = {}
        info: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for path in asked:
            try:
                artifact = self._artifacts.create(origin, container, path)
            except Refusal as refusal:  # one that is taken keeps no other waiting
                errors[path] = {"error": {"code": refusal.code, "message": refusal.message}}
                continue
            # By the name that the client gave: ``./a`` is looked up as ``./a``.
            made[path] = _document(artifact)
            info[path] = self._information(artifact, WRITE)
        return json_answer({"artifacts": made, "artifactContentInformation": info, "errors": errors})

    def _write(self, request: Request) -> Answer:
        origin, container = self._place(request, writing=True)
        try:
            artifact = self._artifacts.find(origin, container, request.params["path"])
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            artifact = self._artifacts.create(origin, container, request.params["path"])
        return json_answer(self._information(artifact, WRITE))

    def _write_content(self, request: Request) -> Answer:
        origin, container = self._place(request)
        if len(request.body) > _MAX_CONTENT:
            raise Refusal(413, "UserError", f"At most {_MAX_CONTENT} bytes can be posted; larger files are uploaded.")
        path = request.params["path"]
        found = next((one for one in self._artifacts.below(origin, container, path) if one.path == path), None)
        artifact = found or self._artifacts.create(origin, container, path)
        if request.first("append").lower() != "true":
            self._blobs.delete(RUNS_CONTAINER, blob_name(artifact))
        self._blobs.append(RUNS_CONTAINER, blob_name(artifact), request.body)
        return json_answer(_document(artifact))

    def _ingest(self, request: Request) -> Answer:
        # A job could read other jobs' files by ingesting them.
        self._access.only_user(request.identity)
        origin, container = request.params["origin"], request.params["container"]
        asked = request.document()
        source = self._container_of(str(asked.get("containerUri") or ""))
        prefix = str(asked.get("prefix") or "")
        beneath = checked_prefix(str(asked.get("artifactPrefix") or ""))
        done = []
        for blob in self._blobs.list(source, prefix):
            path = "/".join(part for part in (beneath, blob.name.removeprefix(prefix).strip("/")) if part)
            artifact = self._artifacts.create(origin, container, path)
            self._blobs.put(RUNS_CONTAINER, blob_name(artifact), self._blobs.stream(source, blob.name))
            done.append(_document(artifact))
        return json_answer({"value": done, "continuationToken": None})

    # --- files that are there ---

    def _info(self, request: Request) -> Answer:
        return json_answer(self._information(self._find(request, reading=True), "r"))

    def _metadata(self, request: Request) -> Answer:
        return json_answer(_document(self._find(request, reading=True)))

    def _read_content(self, request: Request) -> Answer:
        artifact = self._find(request, reading=True)
        try:
            body = self._blobs.stream(RUNS_CONTAINER, blob_name(artifact))
        except FileNotFoundError:
            return Answer(200, b"", {"content-type": "application/octet-stream"})
        return Answer(200, body, {"content-type": "application/octet-stream"})

    def _list(self, request: Request) -> Answer:
        found, token = self._paged(request)
        return json_answer({"value": [_document(one) for one in found], "continuationToken": token})

    def _below(self, request: Request) -> Answer:
        found, token = self._paged(request)
        return json_answer({"value": [self._information(one, "r") for one in found], "continuationToken": token})

    def _delete(self, request: Request) -> Answer:
        self._artifacts.delete(self._find(request))
        return json_answer({})

    def _delete_all(self, request: Request) -> Answer:
        origin, container = self._place(request)
        for artifact in tuple(self._artifacts.below(origin, container)):
            self._artifacts.delete(artifact)
        return json_answer({})

    # --- parts ---

    def _place(self, request: Request, *, reading: bool = False, writing: bool = False) -> tuple[str, str]:
        """Return where a file is, to somebody who may see and change it there.

        :raises Refusal: 403, a job asks for what is not its own.
        """
        origin, container = request.params["origin"], request.params["container"]
        identity, path = request.identity, request.params.get("path", "")
        if writing and self._shared is not None and self._shared.may_write(identity, origin, container):
            return origin, container
        if reading and self._shared is not None and self._shared.may_read(identity, origin, container, path):
            return origin, container
        if origin.lower() == RUN_ORIGIN.lower() and container.startswith("dcid."):
            self._access.may_change(request.identity, container.removeprefix("dcid."))
        else:
            self._access.only_user(request.identity)
        return origin, container

    def _find(self, request: Request, *, reading: bool = False) -> Artifact:
        return self._artifacts.find(*self._place(request, reading=reading), request.params["path"])

    def _paged(self, request: Request) -> tuple[list[Artifact], str | None]:
        origin, container = self._place(request, reading=True)
        prefix, after = request.params.get("path", ""), request.first("continuationToken")
        found = list(self._artifacts.below(origin, container, prefix, after=after, limit=_PAGE + 1))
        return found[:_PAGE], found[_PAGE - 1].path if len(found) > _PAGE else None

    def _information(self, artifact: Artifact, permission: str) -> dict[str, Any]:
        return {
            "contentUri": self._artifacts.address(artifact, permission),
            "origin": artifact.origin,
            "container": artifact.container,
            "path": artifact.path,
        }

    def _container_of(self, url: str) -> str:
        name = unquote(urlsplit(url).path).strip("/")
        if not name or "/" in name or urlsplit(url).netloc != urlsplit(self._blobs.url(RUNS_CONTAINER, "x")).netloc:
            raise Refusal(400, "UserError", "containerUri is not a container of the workspace's storage.")
        return name


def _document(artifact: Artifact) -> dict[str, Any]:
    return {
        "artifactId": artifact.artifact_id,
        "origin": artifact.origin,
        "container": artifact.container,
        "path": artifact.path,
        "etag": None,
        "createdTime": iso(artifact.created),
        "dataPath": None,
    }
