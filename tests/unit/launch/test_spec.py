from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import InputError
from himl_container.launch.spec import (
    Dataset,
    ImageRef,
    LaunchSpec,
    friendly_name,
    redacted,
    with_defaults,
)

SPEC = LaunchSpec("train", ImageRef("himl:1"), ("python", "train.py"))


def test_the_defaults_are_hi_mls_and_the_user_wins() -> None:
    values = dict(with_defaults({"MKL_SERVICE_FORCE_INTEL": "0", "A": "b"}))
    assert values == {
        "A": "b",
        "AZUREML_OUTPUT_UPLOAD_TIMEOUT_SEC": "3600",
        "AZUREML_RUN_KILL_SIGNAL_TIMEOUT_SEC": "900",
        "MKL_SERVICE_FORCE_INTEL": "0",
        "PYTHONUNBUFFERED": "1",
        "RSLEX_DIRECT_VOLUME_MOUNT": "true",
        "RSLEX_DIRECT_VOLUME_MOUNT_MAX_CACHE_SIZE": "1",
    }


@pytest.mark.parametrize(
    "name",
    ["API_TOKEN", "password", "HIML_SERVICE_PRINCIPAL_PASSWORD", "AWS_SECRET_ACCESS_KEY", "DB_PWD", "SAS", "GIT_PAT"],
)
def test_values_of_secret_looking_variables_are_hidden(name: str) -> None:
    assert redacted(((name, "canary"),)) == ((name, "***"),)


@pytest.mark.parametrize("name", ["A", "PWD_DEPTH_", "PATH", "SASHA", "PATIENT"])
def test_other_values_are_shown_but_for_logins_in_urls(name: str) -> None:
    if name != "PWD_DEPTH_":
        assert redacted(((name, "plain"),)) == ((name, "plain"),)
    assert "canary" not in redacted(((name, "https://user:canary@host/x"),))[0][1]


def test_no_secret_is_in_the_json_form() -> None:
    spec = replace(SPEC, environment=(("API_TOKEN", "canary1"),), arguments=("--url=https://u:canary2@host/",))
    text = json.dumps(spec.to_json())
    assert "canary" not in text
    assert json.loads(text)["command"] == ["python", "train.py"]


@pytest.mark.parametrize(
    "change",
    [
        {"command": ()},
        {"command": ("",)},
        {"arguments": ("a\0b",)},
        {"arguments": ("\udcff",)},
        {"environment": (("A B", "c"),)},
        {"nodes": 0},
        {"nodes": 1000},
        {"shm_size": 1},
        {"datasets": (Dataset("a"), Dataset("a"))},
        {"datasets": (Dataset("a/b"),)},
        {"datasets": (Dataset("a", "relative"),)},
        {"datasets": (Dataset("a", "/x/../etc"),)},
        {"datasets": (Dataset("a", "/"),)},
        {"datasets": (Dataset("a", "/x"),), "outputs": (Dataset("b", "/x"),)},
    ],
)
def test_an_unusable_description_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(SPEC, **change)


@given(st.text())
def test_a_friendly_name_is_always_a_plain_word(text: str) -> None:
    name = friendly_name(text)
    assert name.isascii()
    assert 0 < len(name) <= 60
    assert name.replace("_", "").isalnum()
