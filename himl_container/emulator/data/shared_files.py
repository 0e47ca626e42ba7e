"""Which files beside its own run's a job may see: those of models; and where it may upload files without a run."""

from __future__ import annotations

from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.state.artifacts import RUN_ORIGIN
from himl_container.emulator.state.models import Models


class SharedFiles:
    """Decides for files that are not of the job's own run (:class:`~himl_container.emulator.services.artifacts`)."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def may_read(self, identity: Identity, origin: str, container: str, path: str) -> bool:
        """Whether a job may read a file, or the files below a path: those of a model, as the whole workspace may."""
        if identity.kind is not Kind.JOB or not path:
            return False
        own = origin.lower() != RUN_ORIGIN.lower() and self._models.owner(container) == identity.run_id
        return own or self._models.holds(origin, container, path)

    def may_write(self, identity: Identity, origin: str, container: str) -> bool:
        """Whether somebody may upload files without a run: a user everywhere, a job where it is the first to do so.

        That is what ``Model.register`` does in a job's script: it makes a name of its own for every upload.
        """
        if origin.lower() != "localupload" or identity.kind is Kind.NOBODY:
            return False
        return self._models.claim(container, identity.run_id)
