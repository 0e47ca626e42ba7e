"""A page in memory, with runs of every kind in it."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import replace
from typing import Any

from unit.emulator.search_fakes import Bench, config

from himl_container.emulator.http import Answer, Request
from himl_container.emulator.names import Workspace
from himl_container.emulator.page.access import PageKey
from himl_container.emulator.page.files import RunFiles
from himl_container.emulator.page.routes import Page
from himl_container.emulator.routes import Router
from himl_container.emulator.state.metrics import ARTIFACT, SCALAR, TABLE, Metric, Value
from himl_container.emulator.state.runs import Status

WORKSPACE = Workspace("t", "s", "g", "emulator", "w", "account", "registry", "vault")
DIGEST = "sha256:" + "ab" * 32
DEFINITION = {
    "script": "train.py",
    "arguments": ["--epochs", 30, "--data", "DatasetConsumptionConfig:images"],
    "target": "cpu",
    "nodeCount": 1,
    "maxRunDurationSeconds": 3600,
    "environmentVariables": {"LEVEL": "<b>high</b>", "API_KEY": "do-not-show"},
    "environment": {
        "name": "training",
        "version": "3",
        "docker": {"baseImage": f"himl.azurecr.io/training@{DIGEST}"},
        "python": {"interpreterPath": "python", "userManagedDependencies": True},
    },
    "data": {
        "images": {
            "mechanism": "Mount",
            "dataLocation": {"dataset": {"id": "d1", "name": "ct-images"}, "dataPath": None},
        }
    },
    "outputData": {"model": {"mechanism": "Upload", "outputLocation": {"dataPath": {"datastoreName": "blobs"}}}},
}
HOSTILE = "<script>alert(1)</script>\"'&"


class Site:
    """The page, as a browser with the cookie sees it."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.key = PageKey("secret", "0123abcd")
        files = RunFiles(self.bench.artifacts, self.bench.blobs)
        bench = self.bench
        page = Page(bench.runs, bench.metrics, files, self.key, workspace=WORKSPACE, clock=bench.clock)
        self.router = Router(page.routes())
        entered = self.answer(f"{self.key.prefix}/", cookie="")
        self.cookie = entered.headers["set-cookie"].partition(";")[0]

    def answer(self, path: str, *, cookie: str | None = None, host: str = "127.0.0.1", **query: str) -> Answer:
        headers = {"cookie": self.cookie if cookie is None else cookie}
        request = Request("GET", host, path, {name: (value,) for name, value in query.items()}, headers)
        found = self.router.find("studio", request)
        return found.route.handler(found.request)

    def page(self, path: str, expect: int = 200, **query: str) -> str:
        answer = self.answer(path, **query)
        assert answer.status == expect, answer.body
        assert isinstance(answer.body, bytes)
        return answer.body.decode()

    # --- what there is to see ---

    def training(self, run_id: str = "training_1", *, ended: bool = True) -> str:
        """A run with a log, files, metrics of every kind, tags and a job."""
        bench = self.bench
        bench.runs.create(
            "segmentation",
            run_id,
            display_name="patient_apple_1",
            target="cpu",
            created_by="somebody",
            snapshot_id="00000000-0000-0000-0000-000000000001",
            definition=DEFINITION,
            tags={"model": "unet", "reviewed": None, "note": HOSTILE},
            properties={"ContentSnapshotId": "00000000-0000-0000-0000-000000000001"},
        )
        bench.now += 4
        bench.runs.set_status(run_id, Status.RUNNING)
        curve = [2.5 * math.exp(-epoch / 6) + 0.05 + 0.03 * math.sin(epoch) for epoch in range(30)]
        self.scalars(run_id, "loss", curve)
        self.scalars(run_id, "learning_rate", [10 ** (-1 - epoch / 8) for epoch in range(30)])
        self.scalars(run_id, "dice", [0.913])
        rows = [
            {"train": 1 - value / 3, "validation": 0.95 - value / 3, "epoch": index}
            for index, value in enumerate(curve)
        ]
        self.log(run_id, "accuracy", TABLE, {"train": "double", "validation": "double", "epoch": "int"}, rows)
        address = f"aml://artifactId/ExperimentRun/dcid.{run_id}/images/mask.png"
        self.log(run_id, "mask", "azureml.v2.image", {"mask": ARTIFACT}, [{"mask": address}])
        bench.artifacts.upload(run_id, "images/mask.png", picture())
        bench.artifacts.upload(run_id, "outputs/model.pt", b"x" * 1_234_567)
        bench.artifacts.upload(run_id, f"outputs/{HOSTILE.replace('/', '')}.txt", b"hostile")
        text = "".join(f"epoch {epoch:2} loss {value:.4f}\n" for epoch, value in enumerate(curve))
        bench.artifacts.append_log(run_id, "user_logs/std_log.txt", f"Start of training\n{HOSTILE}\n{text}".encode())
        bench.artifacts.append_log(run_id, "system_logs/job.log", b"Image is there.\n")
        bench.now += 754
        if ended:
            bench.runs.set_status(run_id, Status.COMPLETED)
        return run_id

    def failure(self) -> str:
        bench = self.bench
        bench.runs.create("segmentation", "failed_1", target="cpu", definition=DEFINITION)
        bench.runs.set_status("failed_1", Status.RUNNING)
        error = {"error": {"code": "UserError", "message": f"AzureMLCompute job failed. {HOSTILE}", "details": []}}
        bench.now += 3
        bench.runs.set_status("failed_1", Status.FAILED, error=error)
        return "failed_1"

    def search(self, children: int = 24) -> str:
        """A random search of several kinds of parameters, one child of which has failed."""
        space: dict[str, Any] = {
            "lr": ["loguniform", [-9, -1]],
            "batch_size": ["choice", [[8, 16, 32, 64]]],
            "optimizer": ["choice", [["adam", "sgd", "lamb"]]],
            "dropout": ["uniform", [0, 0.5]],
        }
        document = config(
            space, sampling="RANDOM", max_total_jobs=children, max_concurrent_jobs=children, properties={"seed": 3}
        )
        run_id = self.bench.submit(document)
        for number, child in enumerate(self.bench.children(run_id)):
            values = json.loads(child.tags["hyperparameters"] or "")
            loss = 0.1 + abs(math.log10(values["lr"]) + 2.5) / 4 + values["dropout"] / 5
            loss += {"adam": 0, "lamb": 0.04, "sgd": 0.12}[values["optimizer"]]
            self.bench.now += 20
            if number == 5:
                self.bench.end(child.run_id, status=Status.FAILED)
            else:
                self.bench.end(child.run_id, loss + 0.3, loss)
        self.bench.searches.step()
        return run_id

    def scalars(self, run_id: str, name: str, values: list[float]) -> None:
        self.log(run_id, name, SCALAR, {name: "double"}, [{name: value} for value in values])

    def log(self, run_id: str, name: str, kind: str, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
        values = tuple(Value(f"{name}{index}", self.bench.now, row) for index, row in enumerate(rows))
        self.bench.metrics.add(run_id, [Metric(name, kind, columns, values)])

    def change(self, run_id: str, **values: Any) -> None:
        self.bench.runs.change(run_id, lambda run: replace(run, **values))


def picture(width: int = 96, height: int = 64) -> bytes:
    """A PNG: a gradient with a disc."""

    def pixel(x: int, y: int) -> bytes:
        inside = (x - 40) ** 2 + (y - 32) ** 2 < 400
        return bytes((230, 90, 60) if inside else (x * 2, 60, y * 3))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"".join(pixel(x, y) for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
