"""All searches of an emulator: created, carried out by one thread, cancelled, and taken up again after a kill."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from himl_container.emulator.http import Refusal
from himl_container.emulator.hyperdrive.controller import Controller, Surroundings
from himl_container.emulator.hyperdrive.definition import Search, read_search
from himl_container.emulator.hyperdrive.journal import parent_properties, parent_tags
from himl_container.emulator.hyperdrive.space import bad
from himl_container.emulator.state.run import Run, Status
from himl_container.errors import HimlError

RUN_TYPE = "hyperdrive"
INTERVAL = 1.0
"""Seconds between two looks at the metrics of children that run."""

_log = logging.getLogger(__name__)


class Searches:
    """Carries out searches, one after the other in one thread: a step takes milliseconds, as jobs run elsewhere."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._controllers: dict[str, Controller] = {}
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        around.runs.listen(self._heard)

    # --- life ---

    def start(self) -> None:
        """Take up what an earlier emulator left, and begin."""
        self._thread = threading.Thread(target=self._work, name="searches", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 30) -> None:
        """Let the step that runs come to its end, and do no other; searches stay as they are."""
        self._stopped = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def step(self) -> bool:
        """Do one step of every search; false where there is none left."""
        for run_id in self._around.store.unfinished():
            if self._stopped:
                return False
            with self._lock:
                self._step(run_id)
        return bool(self._around.store.unfinished())

    def _work(self) -> None:
        going = True
        while not self._stopped:
            self._news.clear()
            try:
                going = self.step()
            except Exception:  # noqa: BLE001 - the next step may go
                _log.exception("searches")
            self._news.wait(INTERVAL if going else None)

    def _heard(self, old: Run, new: Run) -> None:
        # Called inside transactions of others: nothing is asked here.
        if new.run_type == RUN_TYPE or new.parent_id:
            self._news.set()

    def _step(self, run_id: str) -> None:
        try:
            controller = self._controllers.get(run_id) or self._controller(run_id)
            self._controllers[run_id] = controller
            going = controller.step()
        except Exception as error:  # noqa: BLE001 - one that fails must end, and keep no other waiting
            going = False
            self._fail(run_id, error)
        if not going:
            self._controllers.pop(run_id, None)
            self._around.store.end(run_id)

    def _controller(self, run_id: str) -> Controller:
        return Controller(run_id, read_search(self._around.store.document(run_id) or {}), self._around)

    def _fail(self, run_id: str, error: Exception) -> None:
        known = isinstance(error, Refusal | HimlError)
        if not known:
            _log.exception("search %s", run_id)
        message = str(error) if known else f"The emulator failed ({type(error).__name__}); its log has the details."
        document = {"error": {"code": "UserError" if known else "ServiceError", "message": message}}
        controller = self._controllers.get(run_id)
        if controller is None:
            self._around.runs.set_status(run_id, Status.FAILED, error=document)
        else:
            controller.fail(message, document)

    # --- for the service ---

    def create(
        self,
        experiment: str,
        document: Mapping[str, Any],
        target: str,
        search: Search,
        *,
        run_id: str = "",
        parent_id: str = "",
        created_by: str = "",
        submitter: str = "",
    ) -> Run:
        """Create a search, whose children start soon.

        :param document: as it was sent; :param search: the same, read.
        :param target: name of the cluster of its children.
        :param submitter: the run whose job asks for it; empty for a user.
        :raises Refusal: 400 a resumed run is no child of a search, 404 no such parent, 409 the id is taken.
        """
        for earlier in search.resumed:
            if self._around.store.sample_of(earlier) is None:
                raise bad(f"resume_child_runs has {earlier}, which is not a child of a search")
        run_id = run_id or f"HD_{uuid.uuid4()}"
        with self._around.database.write():
            run = self._around.runs.create(
                experiment,
                run_id,
                parent_id=parent_id,
                run_type=RUN_TYPE,
                target=target,
                snapshot_id=search.snapshot_id,
                created_by=created_by,
                submitter=submitter,
                tags=parent_tags(search),
                properties=parent_properties(search),
                warnings=tuple({"source": "hyperdrive", "message": note} for note in search.notes),
                options={"primaryMetricName": search.metric},
            )
            self._around.store.add(run_id, document)
        self._news.set()
        return run

    def cancel(self, run_id: str) -> Run:
        """Ask a search to end; its children are cancelled soon. Nothing happens to one that has ended.

        :raises Refusal: 404, there is no such search.
        """
        run = self._around.runs.get(run_id)
        if self._around.store.document(run_id) is None:
            raise Refusal(404, "NotFound", f"Run {run_id} is not a HyperDrive run.")
        run = self._around.runs.set_status(run_id, Status.CANCEL_REQUESTED)
        self._news.set()
        return run
