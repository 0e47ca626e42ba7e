"""Authorizations: which login is used, when a token is renewed, and what is never sent anywhere."""

from __future__ import annotations

import base64
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.token_answers import Answer, Clock, Given, Sent, Server, answer, token

from himl_container.errors import RegistryError
from himl_container.registry.auth import Authenticator
from himl_container.registry.credentials import Credentials
from himl_container.registry.login import Login, LoginRefusedError, LoginUnavailableError

BEARER = 'Bearer realm="https://auth.example/token",service="registry.example"'
INSUFFICIENT = BEARER + ',error="insufficient_scope"'
PULL, PUSH = "repository:himl/x:pull", "repository:himl/x:pull,push"
SECRET = "canary-secret-51ab"
ADA = Login("ada", SECRET, source="a file")
BOB = Login("bob", "canary-bob-9912", source="another file")


def basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def authenticator(
    server: Server, *sources: Given, clock: Clock | None = None, registry: str = "https://registry.example"
) -> Authenticator:
    return Authenticator(Credentials(sources), server, registry=registry, clock=clock or Clock())


def test_nothing_is_sent_before_the_registry_asks() -> None:
    server, source = Server(), Given([ADA])
    assert authenticator(server, source).authorization(PULL) is None
    assert (server.sent, source.asked) == ([], [])


def test_a_token_is_got_with_the_password_and_kept() -> None:
    server, source = Server(), Given([ADA])
    auth = authenticator(server, source)
    assert auth.challenged(BEARER, PUSH) == "Bearer token-1"
    assert auth.authorization(PUSH) == "Bearer token-1"
    assert auth.authorization(PULL) == "Bearer token-1", "what may push and pull may pull"
    (sent,) = server.sent
    assert (sent.method, sent.login) == ("GET", basic(ADA))
    assert sent.fields == [("service", "registry.example"), ("scope", PUSH)]
    assert source.asked == ["registry.example"]


def test_scopes_of_a_mount_are_asked_for_together() -> None:
    server = Server()
    authenticator(server, Given([ADA])).challenged(BEARER, f"{PUSH} repository:base/y:pull")
    assert [value for name, value in server.sent[0].fields if name == "scope"] == [PUSH, "repository:base/y:pull"]


def test_a_scope_that_is_not_covered_gets_a_token_of_its_own_without_being_refused_first() -> None:
    server = Server()
    auth = authenticator(server, Given([ADA]))
    auth.challenged(BEARER, PULL)
    assert auth.authorization(PUSH) == "Bearer token-2"
    assert auth.authorization("repository:other:pull") == "Bearer token-3"


def test_an_identity_token_asks_by_post() -> None:
    server = Server()
    auth = authenticator(server, Given([Login("", "", "refresh-1", "a file")]))
    auth.challenged(BEARER, f"{PUSH} repository:base/y:pull")
    (sent,) = server.sent
    assert (sent.method, sent.url, sent.login) == ("POST", "https://auth.example/token", "")
    assert dict(sent.fields) == {
        "grant_type": "refresh_token",
        "service": "registry.example",
        "client_id": "himl-container",
        "scope": f"{PUSH} repository:base/y:pull",
        "refresh_token": "refresh-1",
    }


def test_a_server_without_post_gets_the_password() -> None:
    server = Server(lambda sent: answer(404, {}) if sent.method == "POST" else token("t"))
    auth = authenticator(server, Given([Login("ada", SECRET, "refresh-1", "a file")]))
    assert auth.challenged(BEARER, PULL) == "Bearer t"
    assert [sent.method for sent in server.sent] == ["POST", "GET"]


def test_without_a_login_a_token_is_asked_for_by_nobody() -> None:
    server = Server()
    assert authenticator(server, Given([None])).challenged(BEARER, PULL) == "Bearer token-1"
    assert server.sent[0].login == ""


def test_basic_authentication() -> None:
    server = Server()
    auth = authenticator(server, Given([ADA]))
    assert auth.challenged('Basic realm="x"', PULL) == basic(ADA)
    assert auth.authorization("repository:any:pull,push") == basic(ADA)
    assert server.sent == []


def test_bearer_is_preferred_wherever_it_stands() -> None:
    auth = authenticator(Server(), Given([ADA]))
    assert auth.challenged(f'Basic realm="x", {BEARER}', PULL) == "Bearer token-1"


def test_a_token_is_renewed_shortly_before_its_end() -> None:
    clock, server = Clock(), Server()
    auth = authenticator(server, Given([ADA]), clock=clock)
    auth.challenged(BEARER, PULL)
    clock.now += 269
    assert auth.authorization(PULL) == "Bearer token-1"
    clock.now += 2
    assert auth.authorization(PULL) == "Bearer token-2"


def test_a_token_that_is_refused_early_is_renewed_once_for_many_threads() -> None:
    server, source = Server(), Given([ADA])
    auth = authenticator(server, source)
    auth.challenged(BEARER, PUSH)
    barrier = threading.Barrier(8)

    def work(_: int) -> str:
        assert auth.authorization(PUSH) == "Bearer token-1"
        barrier.wait(60)
        return auth.challenged(BEARER + ',error="invalid_token"', PUSH)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(8))) == {"Bearer token-2"}
    assert len(server.sent) == 2
    assert len(source.asked) == 1


def test_many_threads_that_begin_together_get_one_token() -> None:
    server, source = Server(), Given([ADA])
    auth = authenticator(server, source)
    barrier = threading.Barrier(8)

    def work(_: int) -> str:
        assert auth.authorization(PUSH) is None
        barrier.wait(60)
        return auth.challenged(BEARER, PUSH)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(8))) == {"Bearer token-1"}
    assert len(server.sent) == 1


def test_many_threads_with_one_password() -> None:
    auth = authenticator(Server(), Given([ADA]))
    barrier = threading.Barrier(8)

    def work(_: int) -> str:
        assert auth.authorization(PUSH) is None
        barrier.wait(60)
        return auth.challenged("Basic", PUSH)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(8))) == {basic(ADA)}


def test_a_refused_login_is_followed_by_the_next() -> None:
    server = Server(lambda sent: token("bobs") if sent.login == basic(BOB) else answer(401, {}))
    first, second = Given([ADA]), Given([BOB])
    auth = authenticator(server, first, second)
    assert auth.challenged(BEARER, PULL) == "Bearer bobs"
    assert auth.authorization(PUSH) == "Bearer bobs"
    assert [sent.login for sent in server.sent] == [basic(ADA), basic(BOB), basic(BOB)], "a refused one stays refused"


def test_a_later_source_is_not_asked_while_an_earlier_one_serves() -> None:
    second = Given([BOB])
    authenticator(Server(), Given([ADA]), second).challenged(BEARER, PULL)
    assert second.asked == []


def test_basic_authentication_goes_on_to_the_next_login_too() -> None:
    auth = authenticator(Server(), Given([ADA]), Given([BOB]))
    auth.challenged("Basic", PULL)
    assert auth.challenged("Basic", PULL) == basic(BOB)
    with pytest.raises(LoginRefusedError, match=r"refuses the login of a file, and that of another file"):
        auth.challenged("Basic", PULL)


@pytest.mark.parametrize("header", ["Basic", ""])
def test_a_password_that_was_accepted_gets_a_second_chance(header: str) -> None:
    auth = authenticator(Server(), Given([ADA]))
    auth.challenged("Basic", PULL)
    for _ in range(3):
        assert auth.authorization(PULL) == basic(ADA)
        assert auth.challenged(header, PULL) == basic(ADA)
    with pytest.raises(LoginRefusedError):
        auth.challenged(header, PULL)


def test_a_401_that_names_no_way_renews_the_token() -> None:
    auth = authenticator(Server(), Given([ADA]))
    auth.challenged(BEARER, PULL)
    assert auth.authorization(PULL) == "Bearer token-1"
    assert auth.challenged("", PULL) == "Bearer token-2"
    with pytest.raises(LoginRefusedError):
        auth.challenged("", PULL)


def test_a_login_without_the_right_is_followed_by_the_next_for_that_scope_alone() -> None:
    server = Server(lambda sent: token("bobs" if sent.login == basic(BOB) else "adas"))
    auth = authenticator(server, Given([ADA]), Given([BOB]))
    assert auth.challenged(BEARER, PUSH) == "Bearer adas"
    assert auth.challenged(INSUFFICIENT, PUSH) == "Bearer bobs"
    assert auth.authorization("repository:other:pull") == "Bearer adas"
    with pytest.raises(LoginRefusedError) as caught:
        auth.challenged(INSUFFICIENT, PUSH)
    assert "repository:himl/x:pull,push" in str(caught.value)


def test_a_login_whose_new_token_is_refused_at_once_is_followed_by_the_next() -> None:
    """Some registries call a missing right an invalid token; asking for the same token again would never end."""
    server = Server(lambda sent: token(f"{'bob' if sent.login == basic(BOB) else 'ada'}-{len(server.sent)}"))
    auth = authenticator(server, Given([ADA]), Given([BOB]))
    assert auth.authorization(PUSH) is None
    assert auth.challenged(BEARER, PUSH) == "Bearer ada-1"
    assert auth.challenged(BEARER, PUSH) == "Bearer bob-2"
    with pytest.raises(LoginRefusedError, match="the login of a file, and that of another file"):
        auth.challenged(BEARER, PUSH)
    # A later request that is refused only says that its token has run out.
    assert auth.challenged(BEARER, PULL) == "Bearer ada-3"
    assert auth.authorization(PULL) == "Bearer ada-3"
    assert auth.challenged(BEARER, PULL) == "Bearer ada-4"


def test_a_wide_token_that_is_refused_is_followed_by_a_narrow_one_of_the_same_login() -> None:
    server = Server()
    auth = authenticator(server, Given([ADA]))
    auth.challenged(BEARER, PUSH)
    assert auth.authorization(PULL) == "Bearer token-1"
    assert auth.challenged(INSUFFICIENT, PULL) == "Bearer token-2"
    assert ("scope", PULL) in server.sent[-1].fields


def test_a_login_of_the_users_own_choice_is_not_replaced() -> None:
    server, second = Server(lambda sent: answer(401, {})), Given([BOB])
    mine = Login("ada", SECRET, source="HIML_CONTAINER_REGISTRY_USER", only=True)
    with pytest.raises(LoginRefusedError, match="HIML_CONTAINER_REGISTRY_USER"):
        authenticator(server, Given([mine]), second).challenged(BEARER, PULL)
    assert second.asked == []
    assert len(server.sent) == 1, "nor is a token asked for by nobody"


def test_a_refresh_token_that_has_run_out_is_got_anew() -> None:
    valid = ["one"]

    def reply(sent: Sent) -> Answer:
        presented = dict(sent.fields)["refresh_token"]
        return token(f"by-{presented}", 60) if presented in valid else answer(400, {"error": "invalid_grant"})

    clock, server = Clock(), Server(reply)
    source = Given([Login("", "", name, "Azure") for name in ("one", "two", "three")])
    auth = authenticator(server, source, clock=clock)
    assert auth.challenged(BEARER, PULL) == "Bearer by-one"
    for number, name in ((2, "two"), (3, "three")):
        valid[:] = [name]
        clock.now += 60
        assert auth.authorization(PULL) == f"Bearer by-{name}"
        assert len(source.asked) == number
    valid[:] = []
    clock.now += 60
    with pytest.raises(LoginRefusedError, match="Azure"):
        auth.authorization(PULL)


def test_a_login_that_never_worked_is_not_asked_for_again_and_again() -> None:
    source = Given([Login("", "", f"token-{number}", "Azure") for number in range(100)])
    with pytest.raises(LoginRefusedError):
        authenticator(Server(lambda sent: answer(401, {})), source).challenged(BEARER, PULL)
    assert len(source.asked) == 1


def test_a_source_that_does_not_work_is_told_only_when_access_fails() -> None:
    broken = Given([LoginUnavailableError("docker-credential-x is not installed", hint="Install it.")])
    assert authenticator(Server(), broken).challenged(BEARER, PULL) == "Bearer token-1"
    with pytest.raises(LoginRefusedError) as caught:
        authenticator(Server(lambda sent: answer(401, {})), broken).challenged(BEARER, PULL)
    assert "none is known" in str(caught.value)
    assert "docker-credential-x is not installed. Install it." in str(caught.value)


@pytest.mark.parametrize("header", ["", "Negotiate", "Bearer service=x", "Digest realm=x"])
def test_an_unknown_way_to_log_in_is_an_error(header: str) -> None:
    with pytest.raises(LoginRefusedError, match="no way to log in"):
        authenticator(Server(), Given([ADA])).challenged(header, PULL)


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("https://registry.example", "https://elsewhere.example/token", True),
        ("https://registry.example", "http://registry.example/token", False),
        ("https://registry.example", "http://127.0.0.1/token", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", True),
        ("http://127.0.0.1:5000", "http://localhost:5001/token", True),
        ("http://127.0.0.1:5000", "http://[::1]:5001/token", True),
        ("http://127.0.0.1:5000", "http://evil.example/token", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1.evil.example/token", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1@evil.example/token", False),
        ("http://registry.example:5000", "http://registry.example:5001/token", True),
        ("http://registry.example:5000", "http://registry.example.evil/token", False),
        ("https://registry.example", "https://user:pass@auth.example/token", False),
        ("https://registry.example", "https://auth.example\\\\@evil.example/token", False),
        ("https://registry.example", "file:///etc/passwd", False),
        ("https://registry.example", "ftp://auth.example/", False),
        ("https://registry.example", "auth.example/token", False),
        ("https://registry.example", "https:///token", False),
        ("https://registry.example", "https://auth.example:port/", False),
        ("https://registry.example", "https://[auth/", False),
        ("https://registry.example", "https://auth.example/a b", False),
    ],
)
def test_where_a_login_may_go(registry: str, realm: str, allowed: bool) -> None:
    server = Server()
    auth = authenticator(server, Given([ADA]), registry=registry)
    header = f'Bearer realm="{realm}",service="s"'
    if allowed:
        assert auth.challenged(header, PULL) == "Bearer token-1"
    else:
        with pytest.raises(RegistryError, match="no login is sent there"):
            auth.challenged(header, PULL)
        assert server.sent == []


def test_the_query_of_a_realm_stays() -> None:
    server = Server()
    authenticator(server, Given([ADA])).challenged('Bearer realm="https://a.example/t?x=1#y",service="s"', PULL)
    assert server.sent[0].url == "https://a.example/t?x=1&service=s&scope=repository%3Ahiml%2Fx%3Apull"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b'{"token": ""}', b'{"token": 1}', b'{"token": "a\\r\\nX: y"}', b"\xff", b"[" * 99999],
)
def test_an_answer_without_a_token(body: bytes) -> None:
    with pytest.raises(RegistryError, match="is no token"):
        authenticator(Server(lambda sent: (200, {}, body)), Given([ADA])).challenged(BEARER, PULL)


@pytest.mark.parametrize("status", [204, 302, 404, 500])
def test_other_answers_are_errors_with_their_number(status: int) -> None:
    with pytest.raises(RegistryError, match=rf"auth\.example answers {status}"):
        authenticator(Server(lambda sent: answer(status, {})), Given([ADA])).challenged(BEARER, PULL)


@given(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(), st.just(10**400), st.lists(st.none()))
)
def test_any_lifetime_is_bearable(lifetime: object) -> None:
    clock = Clock()
    server = Server(lambda sent: token(f"t{len(server.sent)}", lifetime))
    auth = authenticator(server, Given([ADA]), clock=clock)
    assert auth.challenged(BEARER, PULL) == "Bearer t1"
    clock.now += 86400
    assert auth.authorization(PULL) == "Bearer t2", "nothing is kept for longer than a day"


def texts_of(error: BaseException) -> str:
    """Everything that may be printed of an error."""
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return f"{shown}\n{error!r}\n{error}\n{error.__cause__!r}\n{error.__context__!r}"


@pytest.mark.parametrize("login", [ADA, Login("", "", SECRET, "a file"), Login("ada", SECRET, only=True)])
@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_no_secret_is_in_an_error_even_when_the_server_quotes_it(login: Login, status: int) -> None:
    def reply(sent: Sent) -> Answer:
        quoted = f"{sent.login} {sent.body.decode()} {SECRET} {basic(ADA)[6:]}"
        return answer(status, {"errors": [{"code": "UNAUTHORIZED", "message": quoted}], "error": quoted})

    auth = authenticator(Server(reply), Given([login]))
    with pytest.raises(RegistryError) as caught:
        auth.challenged(BEARER, PULL)
    text = texts_of(caught.value)
    assert SECRET not in text
    assert basic(ADA)[6:] not in text
    assert "registry.example" in str(caught.value)


def test_what_the_registry_says_is_freed_of_tokens() -> None:
    auth = authenticator(Server(lambda sent: token("canary-token")), Given([ADA]))
    auth.challenged(BEARER, PULL)
    error = auth.denied(PULL, f"denied: canary-token {SECRET} {basic(ADA)}")
    assert "denied" in str(error)
    assert "canary-token" not in texts_of(error)
    assert SECRET not in texts_of(error)
    assert "the login of a file" in str(error)


def test_secrets_are_in_no_representation() -> None:
    auth = authenticator(Server(lambda sent: token("canary-token")), Given([ADA]))
    auth.challenged(BEARER, PULL)
    for value in (ADA, auth, auth._held, auth._chain.known, Login("u", "", SECRET)):
        assert SECRET not in repr(value)
        assert "canary-token" not in repr(value)


def test_the_next_step_names_the_registry() -> None:
    with pytest.raises(LoginRefusedError) as caught:
        authenticator(Server(), Given([None])).challenged("Basic", PULL)
    assert "'docker login registry.example'" in caught.value.hint
    assert "HIML_CONTAINER_REGISTRY_USER" in caught.value.hint
    hub = Authenticator(Credentials([]), Server(), registry="https://registry-1.docker.io")
    with pytest.raises(LoginRefusedError, match="'docker login'"):
        hub.challenged("Basic", PULL)
