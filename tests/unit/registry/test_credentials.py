"""Where logins come from, in which order, and for which registry."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from unit.registry.token_answers import Given, place

from himl_container.errors import InputError
from himl_container.registry import credential_helpers, docker_config
from himl_container.registry.credential_helpers import ask_helper
from himl_container.registry.credentials import Credentials, EnvironmentLogin, LoginChain
from himl_container.registry.docker_config import LoginFile
from himl_container.registry.login import Login, LoginUnavailableError, cleaned, is_loopback
from himl_container.settings import Settings, load_settings

HOST = "registry.example:5000"
SECRET = "canary-secret-51ab"
USER_VARIABLES = {"HIML_CONTAINER_REGISTRY_USER": "ada", "HIML_CONTAINER_REGISTRY_PASSWORD": SECRET}


def coded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def helper(folder: Path, name: str, body: str) -> dict[str, str]:
    """Write a helper (Python) and return the environment in which it is found. ``server`` is what it was asked for."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    record = folder / f"{name}.asked"
    lines = (
        f"#!{sys.executable} -SE",
        "import json, sys, os",
        "server = sys.stdin.readline().rstrip('\\n')",
        f"open({str(record)!r}, 'a').write(json.dumps([sys.argv[1:], server]) + '\\n')",
        body,
    )
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    return {"PATH": str(folder), "HOME": str(folder)}


def asked(folder: Path, name: str) -> list[object]:
    path = folder / f"{name}.asked"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


GIVES = "print(json.dumps({'ServerURL': server, 'Username': 'helped', 'Secret': 'canary-secret-51ab'}))"


# The environment


@pytest.mark.parametrize(
    ("variables", "registry", "host", "used"),
    [
        ({}, HOST, HOST, True),
        ({}, f"{HOST}/himl/train", HOST, True),
        ({"HIML_CONTAINER_REGISTRY_HOST": HOST}, "", HOST, True),
        ({"HIML_CONTAINER_REGISTRY_HOST": f"https://{HOST}/"}, "", HOST, True),
        ({"HIML_CONTAINER_REGISTRY": f"{HOST}/himl"}, "", HOST, True),
        ({"HIML_CONTAINER_REGISTRY_HOST": "Team.AzureCR.io"}, HOST, "team.azurecr.io", True),
        ({"HIML_CONTAINER_REGISTRY_HOST": "docker.io"}, "", "registry-1.docker.io", True),
        ({}, HOST, "mcr.microsoft.com", False),
        ({}, HOST, "registry.example", False),
        ({}, HOST, "registry.example:5001", False),
        ({"HIML_CONTAINER_REGISTRY_HOST": "other.example"}, HOST, HOST, False),
    ],
)
def test_user_and_password_belong_to_one_registry(
    variables: dict[str, str], registry: str, host: str, used: bool
) -> None:
    found = EnvironmentLogin({**USER_VARIABLES, **variables}, registry).login(place(host))
    assert (found is not None) == used
    if found:
        assert (found.username, found.password, found.only) == ("ada", SECRET, True)


def test_user_and_password_of_no_registry_are_told() -> None:
    with pytest.raises(LoginUnavailableError, match="belongs to no registry") as caught:
        EnvironmentLogin(USER_VARIABLES).login(place(HOST))
    assert "HIML_CONTAINER_REGISTRY_HOST" in caught.value.hint


@pytest.mark.parametrize("missing", USER_VARIABLES)
def test_half_a_login_is_an_error(missing: str) -> None:
    environ = {name: value for name, value in USER_VARIABLES.items() if name != missing}
    with pytest.raises(InputError, match=f"without {missing}") as caught:
        EnvironmentLogin(environ, HOST).login(place(HOST))
    assert SECRET not in str(caught.value)
    assert EnvironmentLogin(environ, HOST).login(place("mcr.microsoft.com")) is None


def test_the_variables_are_no_unknown_settings(tmp_path: Path) -> None:
    variables = {**USER_VARIABLES, "HIML_CONTAINER_REGISTRY_HOST": HOST}
    settings = load_settings({}, cwd=tmp_path, environ=variables)
    assert isinstance(settings, Settings)
    assert settings.warnings == ()


# Files


@pytest.mark.parametrize(
    ("auths", "host", "user"),
    [
        ({HOST: {"auth": coded("ada", SECRET)}}, HOST, "ada"),
        ({f"https://{HOST}": {"auth": coded("ada", SECRET)}}, HOST, "ada"),
        ({f"http://{HOST}/v1/": {"auth": coded("ada", SECRET)}}, HOST, "ada"),
        ({f"{HOST}/v2/": {"auth": coded("ada", SECRET)}}, HOST, "ada"),
        ({HOST.upper(): {"auth": coded("ada", SECRET)}}, HOST, "ada"),
        ({HOST: {"auth": coded("ada", SECRET) + ""}}, "registry.example", None),
        ({"registry.example": {"auth": coded("ada", SECRET)}}, HOST, None),
        ({f"evil.example/{HOST}": {"auth": coded("ada", SECRET)}}, HOST, None),
        ({f"{HOST}.evil.example": {"auth": coded("ada", SECRET)}}, HOST, None),
        ({"https://index.docker.io/v1/": {"auth": coded("ada", SECRET)}}, "registry-1.docker.io", "ada"),
        ({"https://index.docker.io/v1/": {"auth": coded("ada", SECRET)}}, "docker.io", "ada"),
        ({"docker.io": {"auth": coded("ada", SECRET)}}, "registry-1.docker.io", "ada"),
        ({"https://index.docker.io/v1/": {"auth": coded("ada", SECRET)}}, HOST, None),
        ({HOST: {"username": "ada", "password": SECRET}}, HOST, "ada"),
        ({HOST: {"auth": base64.b64encode(f"ada:{SECRET}".encode() + bytes(3)).decode()}}, HOST, "ada"),
        ({HOST: {}}, HOST, None),
        ({HOST: None}, HOST, None),
        ({HOST: {"auth": 7}}, HOST, None),
        ([], HOST, None),
        ("text", HOST, None),
    ],
)
def test_entries_of_a_file(tmp_path: Path, auths: object, host: str, user: str | None) -> None:
    path = write(tmp_path / "config.json", {"auths": auths})
    found = LoginFile(path, {}).login(place(host))
    assert (found.username if found else None) == user
    if found:
        assert (found.password, found.source, found.only) == (SECRET, str(path), False)


def test_a_password_may_have_any_sign(tmp_path: Path) -> None:
    path = write(tmp_path / "config.json", {"auths": {HOST: {"auth": coded("ada", "a:b:ü ")}}})
    found = LoginFile(path, {}).login(place(HOST))
    assert found is not None
    assert (found.username, found.password) == ("ada", "a:b:ü ")


def test_an_identity_token(tmp_path: Path) -> None:
    entry = {"auth": coded("00000000-0000-0000-0000-000000000000", ""), "identitytoken": SECRET}
    found = LoginFile(write(tmp_path / "config.json", {"auths": {HOST: entry}}), {}).login(place(HOST))
    assert found is not None
    assert (found.identity_token, found.basic) == (SECRET, "")


def test_the_longest_part_of_a_registry_counts(tmp_path: Path) -> None:
    names = {"quay.io": "all", "quay.io/team": "team", "quay.io/team/x": "x"}
    auths = {key: {"auth": coded(user, SECRET)} for key, user in names.items()}
    file = LoginFile(write(tmp_path / "auth.json", {"auths": auths}), {})

    def user(repository: str) -> str:
        found = file.login(place("quay.io", repository=repository))
        assert found is not None
        return found.username

    assert [user(name) for name in ("team/x", "team/xy", "teams", "")] == ["x", "team", "all", "all"]


@pytest.mark.parametrize("auth", ["%%%", "YWRh", base64.b64encode(b"\xff:\xff").decode()])
def test_a_damaged_entry_is_told_without_its_content(tmp_path: Path, auth: str) -> None:
    path = write(tmp_path / "config.json", {"auths": {HOST: {"auth": auth}}})
    with pytest.raises(LoginUnavailableError, match="is damaged") as caught:
        LoginFile(path, {}).login(place(HOST))
    assert auth not in str(caught.value)
    assert LoginFile(path, {}).login(place("other.example")) is None


@pytest.mark.parametrize("text", ["{", f'{{"auths": {SECRET}}}', "\udcff", "[" * 99999])
def test_a_file_that_is_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="is not JSON") as caught:
        LoginFile(path, {}).login(place(HOST))
    assert caught.value.where == str(path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_file_and_an_odd_one(tmp_path: Path) -> None:
    assert LoginFile(tmp_path / "none" / "config.json", {}).login(place(HOST)) is None
    assert LoginFile(write(tmp_path / "list.json", []), {}).login(place(HOST)) is None
    with pytest.raises(LoginUnavailableError, match="cannot be read"):
        LoginFile(tmp_path, {}).login(place(HOST))


def test_the_files_are_dockers_then_podmans(tmp_path: Path) -> None:
    home, run, named = tmp_path / "home", tmp_path / "run", tmp_path / "named.json"
    environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "REGISTRY_AUTH_FILE": str(named)}
    paths = [
        home / ".docker/config.json",
        named,
        run / "containers/auth.json",
        home / ".config/containers/auth.json",
    ]
    for path in reversed(paths):
        write(path, {"auths": {HOST: {"auth": coded(path.name, SECRET)}}})
        chain = LoginChain(Credentials(docker_config.sources(environ)), place(HOST))
        found = chain.best()
        assert found is not None
        assert found.source == str(path)
    write(tmp_path / "other/config.json", {"auths": {HOST: {"auth": coded("other", SECRET)}}})
    with_config = docker_config.sources({**environ, "DOCKER_CONFIG": str(tmp_path / "other")})
    first = LoginChain(Credentials(with_config), place(HOST)).best()
    assert first is not None
    assert first.username == "other"


# Helpers


def test_a_helper_is_asked_on_standard_input(tmp_path: Path) -> None:
    environ = helper(tmp_path / "bin", "vault", GIVES)
    path = write(tmp_path / "config.json", {"credsStore": "vault", "auths": {HOST: {}}})
    found = LoginFile(path, environ).login(place(HOST))
    assert found is not None
    assert (found.username, found.password) == ("helped", SECRET)
    assert found.source == f"docker-credential-vault (credsStore in {path})"
    assert asked(tmp_path / "bin", "vault") == [[["get"], HOST]]


def test_a_helper_of_one_registry_comes_before_that_of_all(tmp_path: Path) -> None:
    helper(tmp_path / "bin", "all", "print('{}')")
    environ = helper(tmp_path / "bin", "one", GIVES)
    config = {"credsStore": "all", "credHelpers": {"other.example": "none", HOST: "one"}}
    found = LoginFile(write(tmp_path / "config.json", config), environ).login(place(HOST))
    assert found is not None
    assert "docker-credential-one (credHelpers" in found.source
    assert asked(tmp_path / "bin", "all") == []


def test_docker_hub_is_asked_for_by_its_old_name(tmp_path: Path) -> None:
    environ = helper(tmp_path / "bin", "vault", GIVES)
    file = LoginFile(write(tmp_path / "config.json", {"credsStore": "vault"}), environ)
    assert file.login(place("registry-1.docker.io")) is not None
    assert asked(tmp_path / "bin", "vault") == [[["get"], "https://index.docker.io/v1/"]]


def test_a_token_of_a_helper(tmp_path: Path) -> None:
    body = "print(json.dumps({'Username': '<token>', 'Secret': 'canary-secret-51ab'}))"
    found = ask_helper("vault", HOST, environ=helper(tmp_path / "bin", "vault", body), source="credsStore")
    assert found == Login("", "", SECRET, "docker-credential-vault (credsStore)")


@pytest.mark.parametrize(
    "body",
    [
        "print('credentials not found in native keychain'); sys.exit(1)",
        "print('{}')",
        "print(json.dumps({'Username': '', 'Secret': ''}))",
    ],
)
def test_a_helper_without_a_login_leaves_it_to_the_file(tmp_path: Path, body: str) -> None:
    environ = helper(tmp_path / "bin", "vault", body)
    config = {"credsStore": "vault", "auths": {HOST: {"auth": coded("ada", SECRET)}}}
    found = LoginFile(write(tmp_path / "config.json", config), environ).login(place(HOST))
    assert found is not None
    assert found.username == "ada"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('the keyring is locked'); sys.exit(3)", r"fails \(exit code 3\): the keyring is locked"),
        ("print('x'); sys.exit(1)", r"fails \(exit code 1\): x"),
        (f"{GIVES}; sys.exit(1)", r"fails \(exit code 1\)$"),
        ("print('bad token eyJhbGciOiJSUzI1NiIsInR5cCI.canary.x1'); sys.exit(1)", r"bad token \*\*\*$"),
        ("print('no JSON')", "something else than a login"),
        ("print('[]')", "something else than a login"),
        ("sys.stdout.buffer.write(bytes([255] * 99))", "something else than a login"),
        ("os.kill(os.getpid(), 9)", r"fails \(exit code -9\)"),
        ("import time; time.sleep(600)", "did not answer within 1 seconds"),
        ("os.close(1); os.fork() or os.execlp('/bin/sleep', 'sleep', '600'); os.wait()", "did not answer within 1"),
    ],
)
def test_a_helper_that_fails_is_told_in_words(tmp_path: Path, body: str, message: str) -> None:
    environ = helper(tmp_path / "bin", "vault", body)
    with pytest.raises(LoginUnavailableError, match=message) as caught:
        # Only where the limit is what the test is about, the start of an interpreter must not come near to it.
        limit = 1 if "did not answer" in message else 60
        ask_helper("vault", HOST, environ=environ, source="credsStore", time_limit=limit)
    assert SECRET not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_helper_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoginUnavailableError, match="docker-credential-vault is not installed"):
        ask_helper("vault", HOST, environ={"PATH": str(tmp_path)}, source="credsStore")
    broken = tmp_path / "docker-credential-vault"
    broken.write_text("#!/no/such/program\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(LoginUnavailableError, match="cannot be started"):
        ask_helper("vault", HOST, environ={"PATH": str(tmp_path)}, source="credsStore")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "a;b", "-x", "a\nb", "$(x)", "x" * 101, "ä"])
def test_only_names_of_programs_are_names_of_helpers(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoginUnavailableError, match="is not the name of a helper"):
        ask_helper(name, HOST, environ=dict(os.environ), source="credsStore")


def test_a_helper_sees_the_environment_of_the_caller_and_no_secret_in_arguments(tmp_path: Path) -> None:
    body = "print(json.dumps({'Username': os.environ['VAULT'], 'Secret': 'x'}))"
    environ = {**helper(tmp_path / "bin", "vault", body), "VAULT": "mine"}
    found = ask_helper("vault", HOST, environ=environ, source="credsStore")
    assert found is not None
    assert found.username == "mine"


def test_the_time_limit_is_long_enough_for_a_person() -> None:
    assert credential_helpers.TIME_LIMIT >= 30


# The chain


def test_the_order_of_everything(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), **USER_VARIABLES}
    write(tmp_path / ".docker/config.json", {"auths": {HOST: {"auth": coded("docker", SECRET)}}})
    write(tmp_path / ".config/containers/auth.json", {"auths": {HOST: {"auth": coded("podman", SECRET)}}})
    workspace = Given([Login("azure", SECRET, source="Azure")])

    def user(registry: str, *passed: Login) -> str | None:
        credentials = Credentials.of(environ, registry=registry, workspace=[workspace])
        found = LoginChain(credentials, place(HOST)).best(passed)
        return found.username if found else None

    assert user(HOST) == "ada"
    assert user("other.example") == "docker"
    assert workspace.asked == []
    (tmp_path / ".docker/config.json").unlink()
    assert user("other.example") == "podman"
    (tmp_path / ".config/containers/auth.json").unlink()
    assert user("other.example") == "azure"


def test_making_credentials_asks_nothing_and_reads_nothing(tmp_path: Path) -> None:
    write(tmp_path / ".docker/config.json", "{ not JSON")
    Credentials.of({"HOME": str(tmp_path)})


# Texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the keyring is locked", "the keyring is locked"),
        ("a\n\tb\x1b[31mc", "a b [31mc"),
        ("password=hunter2secret", "password=***"),
        ("x" * 300, "x" * 199 + "…"),
        ("token 0123456789abcdef0123 end", "token *** end"),
        ("/home/user/.docker/config.json", "/home/user/.docker/config.json"),
    ],
)
def test_texts_of_strangers(text: str, expected: str) -> None:
    assert cleaned(text, secrets=("hunter2secret",)) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("[::1]:5000", True),
        ("registry.localhost", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("10.0.0.1", False),
        ("", False),
        ("[", False),
    ],
)
def test_addresses_of_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected
