"""What the bearer of a token may do: a user everything, a job only what is its own run's or a descendant's."""

from __future__ import annotations

from himl_container.emulator.http import Refusal
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.state.runs import Runs
from himl_container.emulator.tokens import Tokens

JOB_AUDIENCE = "https://ml.azure.com"


class Access:
    """Decides, and gives jobs their tokens.

    :param job_lifetime: seconds for which a job's token is valid; the SDK asks for a new one in time.
    """

    def __init__(self, runs: Runs, tokens: Tokens, job_lifetime: float = 24 * 3600) -> None:
        self._runs, self._tokens, self._job_lifetime = runs, tokens, job_lifetime

    def may_change(self, identity: Identity, run_id: str) -> None:
        """Let a user, or a job of this run or of an ancestor, change a run.

        :raises Refusal: 403, it is another run; 404 there is none of this id.
        """
        if identity.kind is Kind.USER:
            return
        self._runs.get(run_id)
        if identity.kind is not Kind.JOB or not self._runs.related(identity.run_id, run_id):
            raise forbidden(f"The job of run {identity.run_id} may not change run {run_id} or see its files.")

    def may_read(self, identity: Identity, run_id: str) -> None:
        """Let a user, or a job of this run or of an ancestor, read a run's files. Runs themselves everybody may read.

        :raises Refusal: 403, they are another run's; 404 there is none of this id.
        """
        self.may_change(identity, run_id)

    def only_user(self, identity: Identity) -> None:
        """Let a user pass and no job: keys and registry passwords, changes of the workspace.

        :raises Refusal: 403, a job asks.
        """
        if identity.kind is not Kind.USER:
            raise forbidden("A job may not do this.")

    def job_token(self, run_id: str) -> tuple[str, int]:
        """Return a token for a run's job, and when it expires (seconds since the epoch)."""
        return self._tokens.issue(Identity(Kind.JOB, run_id, run_id), JOB_AUDIENCE, self._job_lifetime)


def forbidden(message: str) -> Refusal:
    """Return Azure's answer to somebody who may not do what they ask for."""
    return Refusal(403, "AuthorizationFailed", message)
