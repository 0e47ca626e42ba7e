"""Who asks: a person or service principal, or a job, as the token of a request says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Whose token it is."""

    NOBODY = "nobody"
    USER = "user"
    JOB = "job"


@dataclass(frozen=True)
class Identity:
    """The bearer of a token.

    :param name: the client id of a service principal, the name of a user, or a run's id.
    :param run_id: the run whose job was given the token; empty for a user. A job may read the whole workspace and
        change its own run and that run's children.
    """

    kind: Kind
    name: str = ""
    run_id: str = ""


NOBODY = Identity(Kind.NOBODY)
