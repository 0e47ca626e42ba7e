"""What is kept of a job that is over, and the last change of its run's status."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace

from himl_container.emulator.compute.ends import JobEnd, failed
from himl_container.emulator.compute.files import RunFiles
from himl_container.emulator.compute.folder import KEPT, JobFolder
from himl_container.emulator.compute.logs import JobLogs
from himl_container.emulator.compute.model import JobOutput
from himl_container.emulator.compute.workshop import Workshop
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.runs import Status
from himl_container.errors import HimlError
from himl_container.launch.ownership import calling_user, hand_over

_log = logging.getLogger(__name__)


class Finish:
    """The end of a job, also of one that was found dead."""

    def __init__(self, workshop: Workshop, run_id: str, folder: JobFolder, files: RunFiles, logs: JobLogs) -> None:
        self._workshop, self._run_id, self._folder, self._files, self._logs = workshop, run_id, folder, files, logs

    def carry_out(self, end: JobEnd, outputs: Iterable[JobOutput]) -> None:
        """Upload what the job wrote, then let the run end.

        From here on, the end is known: where the emulator is killed meanwhile, its next start goes on with it.

        :param outputs: none for a job that was never started.
        """
        shop = self._workshop
        shop.jobs.note_outcome(self._run_id, end.status.value, end.error)
        shop.runs.set_status(self._run_id, Status.FINALIZING, unless=(Status.CANCEL_REQUESTED,))
        self.keep_files()
        end = self._store(end, outputs)
        self.close()
        if end.warning:
            warning = {"source": "compute", "message": end.warning}
            shop.runs.change(self._run_id, lambda run: replace(run, warnings=(*run.warnings, warning)))
        shop.runs.set_status(self._run_id, end.status, error=end.error)
        shop.jobs.remove(self._run_id)
        self._folder.remove()

    def keep_files(self) -> None:
        """Upload ``outputs`` and ``logs``."""
        self._take_over()
        for name in KEPT:
            for problem in self._files.save(self._folder.path / name, name):
                self._logs.say(problem)

    def close(self) -> None:
        """Write what is left of the logs."""
        problem = self._logs.close()
        if problem is not None:
            _log.error("run %s: some of its log is lost: %s", self._run_id, problem)

    def _store(self, end: JobEnd, outputs: Iterable[JobOutput]) -> JobEnd:
        for item in outputs:
            folder = self._folder.output(item.name)
            if not folder.is_dir():
                continue
            if item.mode == "upload" and end.status is not Status.COMPLETED:
                # "If the job fails or gets canceled, then the output directory will not be uploaded" (as_upload).
                self._logs.say(f"Output {item.name} is not uploaded, because the job did not complete.")
                continue
            try:
                self._workshop.data.store(self._run_id, item, folder)
                self._logs.say(f"Output {item.name} is stored.")
            except (HimlError, Refusal) as error:
                text = f"The output {item.name} could not be stored: {error}"
                self._logs.say(text)
                if end.status is Status.COMPLETED:
                    end = failed("UserError", text, "OutputNotStored")
        return end

    def _take_over(self) -> None:
        """Make this process's user the owner of what the job wrote as root."""
        image = self._folder.image
        if image and self._folder.path.is_dir():
            hand_over(
                [self._folder.path],
                [],
                calling_user(os.environ),
                containers=self._workshop.containers,
                image=image,
                name=f"himl-{self._folder.path.name[:16]}-owner",
                warn=self._logs.say,
            )
