"""Tokens and what their bearers may do."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt
import pytest

from himl_container.emulator.access import JOB_AUDIENCE, Access
from himl_container.emulator.http import Refusal
from himl_container.emulator.identity import NOBODY, Identity, Kind
from himl_container.emulator.installation import Installation, open_installation
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.runs import Runs
from himl_container.emulator.tokens import ML_AUDIENCES, BadToken, Tokens, token_key

USER = Identity(Kind.USER, "client")


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return open_installation(tmp_path / "data", workspace_name="ws", resource_group="group")


@pytest.fixture
def tokens(installation: Installation, clock: Clock) -> Tokens:
    return Tokens(token_key(installation.folder), installation, clock, lifetime=600)


@pytest.fixture
def runs(clock: Clock) -> Runs:
    found = Runs(Database(":memory:"), clock)
    found.create("experiment", "parent")
    found.create("experiment", "child", parent_id="parent")
    found.create("experiment", "grandchild", parent_id="child")
    found.create("experiment", "stranger")
    return found


def test_a_token_says_who_its_bearer_is(tokens: Tokens, clock: Clock) -> None:
    token, expires = tokens.issue(USER, "https://management.azure.com/")
    assert expires == clock.now + 600
    assert tokens.identity(token, {"https://management.azure.com"}) == USER
    job, _ = tokens.issue(Identity(Kind.JOB, "run", "run"), JOB_AUDIENCE)
    assert tokens.identity(job, ML_AUDIENCES) == Identity(Kind.JOB, "run", "run")


def test_a_token_ends(tokens: Tokens, clock: Clock) -> None:
    """Also one that was looked at before."""
    token, expires = tokens.issue(USER, JOB_AUDIENCE)
    clock.now = expires - 1
    tokens.identity(token, ML_AUDIENCES)
    clock.now = expires
    with pytest.raises(BadToken) as caught:
        tokens.identity(token, ML_AUDIENCES)
    assert caught.value.code == "ExpiredAuthenticationToken"


def test_tokens_of_one_second_differ(tokens: Tokens) -> None:
    assert tokens.issue(USER, "a")[0] != tokens.issue(USER, "a")[0]


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\0", "ü" * 10, "." * 5000])
def test_nonsense_is_no_token(tokens: Tokens, token: str) -> None:
    with pytest.raises(BadToken):
        tokens.identity(token, ML_AUDIENCES)


def test_other_algorithms_are_not_taken(tokens: Tokens, installation: Installation) -> None:
    """Above all not one that takes the public key, which everybody knows, for a secret."""
    claims = {"exp": 2_000_000_000, "aud": JOB_AUDIENCE, "kind": "user", "tid": installation.workspace.tenant_id}
    for token in (jwt.encode(claims, "secret" * 10, "HS256"), jwt.encode(claims, "", "none")):
        with pytest.raises(BadToken):
            tokens.identity(token, ML_AUDIENCES)


def test_another_emulators_token(tokens: Tokens, tmp_path: Path, clock: Clock) -> None:
    other = open_installation(tmp_path / "other", workspace_name="ws", resource_group="group")
    token, _ = Tokens(token_key(other.folder), other, clock, 600).issue(USER, JOB_AUDIENCE)
    with pytest.raises(BadToken):
        tokens.identity(token, ML_AUDIENCES)


def test_keys_are_made_once_and_kept_private(installation: Installation) -> None:
    assert token_key(installation.folder) == token_key(installation.folder)
    for name in ("token.key", "state.json"):
        assert stat.S_IMODE((installation.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(installation.folder.stat().st_mode) == 0o700


def test_an_installation_is_the_same_when_it_is_opened_again(installation: Installation) -> None:
    again = open_installation(installation.folder, workspace_name="other", resource_group="other")
    assert again == installation
    assert again.workspace.name == "ws"


def test_a_job_may_do_what_is_its_runs(runs: Runs, tokens: Tokens) -> None:
    access = Access(runs, tokens)
    job = Identity(Kind.JOB, "child", "child")
    for run in ("child", "grandchild"):
        access.may_change(job, run)
        access.may_read(job, run)
    for run in ("parent", "stranger"):
        for check in (access.may_change, access.may_read):
            with pytest.raises(Refusal) as caught:
                check(job, run)
            assert caught.value.status == 403
    with pytest.raises(Refusal) as caught:
        access.may_change(job, "unknown")
    assert caught.value.status == 404


def test_a_user_may_everything_and_a_job_no_keys(runs: Runs, tokens: Tokens) -> None:
    access = Access(runs, tokens)
    access.may_change(USER, "stranger")
    access.only_user(USER)
    for identity in (NOBODY, Identity(Kind.JOB, "child", "child")):
        with pytest.raises(Refusal) as caught:
            access.only_user(identity)
        assert caught.value.status == 403
    with pytest.raises(Refusal):
        access.may_change(NOBODY, "stranger")


def test_a_jobs_token(runs: Runs, tokens: Tokens, clock: Clock) -> None:
    token, expires = Access(runs, tokens, job_lifetime=50).job_token("child")
    assert expires == clock.now + 50
    assert tokens.identity(token, ML_AUDIENCES) == Identity(Kind.JOB, "child", "child")
