"""After a kill of the emulator: what became of the jobs that it left."""

from __future__ import annotations

import logging

from himl_container.emulator.compute.description import EMULATOR_LABEL
from himl_container.emulator.compute.ends import CANCELED, KILLED, JobEnd, failed
from himl_container.emulator.compute.files import RunFiles
from himl_container.emulator.compute.finish import Finish
from himl_container.emulator.compute.folder import JobFolder
from himl_container.emulator.compute.logs import JobLogs
from himl_container.emulator.compute.workshop import Workshop
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.jobs import Job
from himl_container.emulator.state.runs import Run, Status
from himl_container.errors import HimlError

_NOTHING_RAN = (Status.NOT_STARTED, Status.QUEUED, Status.PREPARING, Status.PROVISIONING)

_log = logging.getLogger(__name__)


def take_up(workshop: Workshop) -> tuple[list[Job], list[Job]]:
    """Remove the containers that are left, and return the jobs that have to wait again, and those that are dead."""
    try:
        for name in workshop.containers.labelled(EMULATOR_LABEL, workshop.emulator_id):
            workshop.containers.remove(name)
    except HimlError as error:
        _log.error("containers of an earlier emulator may be left: %s", error)
    waiting: list[Job] = []
    dead: list[Job] = []
    for job in workshop.jobs.all():
        run = workshop.runs.find(job.run_id)
        if run is None or run.status.ended:
            workshop.jobs.remove(job.run_id)
        elif run.status in _NOTHING_RAN and not job.outcome:
            workshop.runs.set_status(job.run_id, Status.QUEUED)
            waiting.append(job)
        else:
            dead.append(job)
    return waiting, dead


def bury(workshop: Workshop, job: Job) -> None:
    """Upload what is left of a job that was running, and end its run."""
    run = workshop.runs.get(job.run_id)
    logs = JobLogs(workshop.files, job.run_id)
    files = RunFiles(workshop.files, job.run_id)
    finish = Finish(workshop, job.run_id, JobFolder(workshop.folder, job.run_id), files, logs)
    try:
        outputs = workshop.data.outputs(job.run_id, run.definition, run.submitter)
    except (HimlError, Refusal) as error:
        logs.say(f"The outputs are not stored: {error}")
        outputs = ()
    if not job.outcome:
        logs.say(KILLED)
    finish.carry_out(_end(job, run), outputs)


def _end(job: Job, run: Run) -> JobEnd:
    if job.outcome:  # only its files were left to be uploaded
        return JobEnd(Status(job.outcome["status"]), job.outcome["error"])
    if run.status is Status.CANCEL_REQUESTED:
        return CANCELED
    return failed("ServiceError", KILLED, "EmulatorKilled")
