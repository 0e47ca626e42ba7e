"""What is tried again, and how long one waits for it. Exceptions are the real ones of the libraries below the SDK."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
import requests

from himl_container.azureml.retry import DELAYS, LONGEST_DELAY, is_transient, one_line, retried, status_of


def _response(status: int, body: bytes = b"{}", **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = body
    response.headers.update({"Content-Type": "application/json", **headers})
    response.url = "https://eastus.api.azureml.ms/history/v1.0?sig=SECRET"
    return response


def _of_requests(status: int, **headers: str) -> Exception:
    return requests.HTTPError(f"{status} of the server", response=_response(status, **headers))


def _of_msrest(status: int, **headers: str) -> Exception:
    from msrest.exceptions import HttpOperationError

    return HttpOperationError(None, _response(status, **headers))


def _of_azure_core(status: int, **headers: str) -> Exception:
    from azure.core.exceptions import HttpResponseError

    error = HttpResponseError("refused")
    error.response, error.status_code = _response(status, **headers), status  # type: ignore[assignment]
    return error


def _of_the_sdk(status: int, **headers: str) -> Exception:
    from azureml._restclient.exceptions import ServiceException
    from azureml._restclient.models.error_response import ErrorResponseException
    from msrest import Deserializer

    body = b'{"error": {"code": "C", "message": "what the service said"}}'
    return ServiceException(ErrorResponseException(Deserializer(_models()), _response(status, body, **headers)))


def _models() -> dict[str, Any]:
    from azureml._restclient import models

    return {name: kind for name, kind in vars(models).items() if isinstance(kind, type)}


def _inside(status: int, **headers: str) -> Exception:
    from azureml.exceptions import ProjectSystemException

    return ProjectSystemException("it did not work", inner_exception=_of_msrest(status, **headers))


def _in_the_text(status: int, **_headers: str) -> Exception:
    from azureml.exceptions import ComputeTargetException

    return ComputeTargetException(f"Received bad response from Resource Provider:\nResponse Code: {status}\nHeaders: x")


def _as_json(status: int, **_headers: str) -> Exception:
    from azureml._base_sdk_common.common import get_http_exception_response_string
    from azureml.exceptions import ProjectSystemException

    answer = _response(status, b'{"error": {"code": "C", "message": "what the service said"}}')
    return ProjectSystemException(get_http_exception_response_string(answer))


def _of_msal(status: int, **_headers: str) -> Exception:
    from msal.authority import tenant_discovery
    from msal.throttled_http_client import NormalizedResponse

    class Client:
        def get(self, *_args: Any, **_options: Any) -> Any:
            return NormalizedResponse(_response(status))

    try:
        try:
            tenant_discovery("https://login.microsoftonline.com/t", Client())
        except ValueError:
            raise ValueError("Unable to get authority configuration for t")  # noqa: B904  # as msal does
    except Exception as error:  # noqa: BLE001  # whatever it is, it is looked at
        return error
    raise AssertionError


_MAKERS = [_of_requests, _of_msrest, _of_azure_core, _of_the_sdk, _inside, _in_the_text, _as_json, _of_msal]


@pytest.mark.parametrize("make", _MAKERS)
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_answers(make: Any, status: int) -> None:
    assert is_transient(make(status))


@pytest.mark.parametrize("make", _MAKERS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 501])
def test_permanent_answers(make: Any, status: int) -> None:
    assert not is_transient(make(status))


def _interrupted() -> list[Exception]:
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError
    from azureml.exceptions import AuthenticationException
    from msrest.exceptions import ClientRequestError
    from urllib3.exceptions import ProtocolError

    inner = AuthenticationException("it did not work", inner_exception=requests.ConnectionError("reset"))
    caused = RuntimeError("in vain")
    caused.__cause__ = TimeoutError("too slow")
    return [
        requests.ConnectionError("reset"),
        requests.Timeout("too slow"),
        requests.exceptions.ChunkedEncodingError("cut off"),
        ClientRequestError("no connection"),
        ServiceRequestError("no connection"),
        ServiceResponseError("cut off"),
        ProtocolError("cut off"),
        ConnectionResetError(),
        TimeoutError(),
        inner,
        caused,
    ]


def test_interruptions_are_transient() -> None:
    assert [error for error in _interrupted() if not is_transient(error)] == []


def _permanent() -> list[Exception]:
    from azure.core.exceptions import ClientAuthenticationError
    from azureml.exceptions import UserErrorException

    certificate = requests.exceptions.SSLError("certificate verify failed")
    return [
        ValueError("Code: 503"),
        UserErrorException("there is no such subscription"),
        ClientAuthenticationError("AADSTS700082"),
        certificate,
        PermissionError("a folder"),
        KeyError("x"),
    ]


def test_mistakes_are_permanent() -> None:
    assert [error for error in _permanent() if is_transient(error)] == []


def test_our_own_errors_are_no_failures_of_what_was_handled_before() -> None:
    from himl_container.azureml.failures import WrongValue

    try:
        try:
            raise requests.ConnectionError("reset")
        except requests.ConnectionError:
            raise WrongValue("the name")  # noqa: B904
    except WrongValue as error:
        assert not is_transient(error)


def test_an_exception_that_names_itself_as_its_cause() -> None:
    error = RuntimeError("round")
    error.__cause__ = error
    assert not is_transient(error)


class _Action:
    """Fails as told, then returns 7."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.calls, self.slept = list(failures), 0, list[float]()

    def __call__(self) -> int:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return 7

    def run(self, **options: Any) -> int:
        return retried("reading the run", self, sleep=self.slept.append, **options)


def test_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    action = _Action(_of_requests(503), requests.ConnectionError("https://user:SECRET@host/x?sig=SECRET reset"))
    with caplog.at_level(logging.WARNING):
        assert action.run() == 7
    assert action.slept == list(DELAYS[:2])
    first, second = caplog.messages
    assert first == "reading the run: HTTPError: 503 of the server. Attempt 2 of 5 in 1 s."
    assert "Attempt 3 of 5" in second
    assert "SECRET" not in second


def test_permanent_failures_at_once() -> None:
    action = _Action(_of_msrest(404))
    with pytest.raises(Exception, match="invalid status") as caught:
        action.run()
    assert status_of(caught.value) == 404
    assert (action.calls, action.slept) == (1, [])


def test_the_last_failure_comes_through_as_it_is() -> None:
    failures = [_of_requests(503) for _ in range(9)]
    action = _Action(*failures)
    with pytest.raises(requests.HTTPError) as caught:
        action.run(delays=(1, 1, 1))
    assert caught.value is failures[3]
    assert (action.calls, action.slept) == (4, [1, 1, 1])


def test_never_again_where_there_are_no_delays() -> None:
    action = _Action(_of_requests(503))
    with pytest.raises(requests.HTTPError):
        action.run(delays=())
    assert action.calls == 1


@pytest.mark.parametrize("make", [_of_requests, _of_msrest, _of_azure_core, _of_the_sdk, _inside])
def test_the_server_says_how_long(make: Any) -> None:
    action = _Action(make(429, **{"Retry-After": "7"}))
    assert action.run() == 7
    assert action.slept == [7]


@pytest.mark.parametrize(
    ("value", "slept"), [("0", 1.0), ("86400", LONGEST_DELAY), ("soon", 1.0), ("-3", 1.0), ("1.5", 1.5), ("", 1.0)]
)
def test_odd_answers_to_how_long(value: str, slept: float) -> None:
    action = _Action(_of_requests(503, **{"Retry-After": value}))
    action.run()
    assert action.slept == [slept]


def test_the_server_names_a_time() -> None:
    # As late as may be waited for: none of our own delays is near, however long this takes.
    when = datetime.now(timezone.utc) + timedelta(seconds=LONGEST_DELAY - 1)
    action = _Action(_of_requests(503, **{"Retry-After": format_datetime(when, usegmt=True)}))
    action.run()
    assert DELAYS[-1] < action.slept[0] <= LONGEST_DELAY - 1


def test_interrupts_are_no_failures() -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retried("x", stopped, sleep=lambda _: pytest.fail("waited"))


def test_one_line_of_the_sdk() -> None:
    assert one_line(_of_the_sdk(404)) == "ServiceException: what the service said"
    assert one_line(_as_json(503)) == "ProjectSystemException: what the service said"
    assert one_line(_in_the_text(503)).startswith("ComputeTargetException: Received bad response")
    assert one_line(KeyError()) == "KeyError"
    assert one_line(ValueError("{not JSON\nat all")) == "ValueError: {not JSON"
