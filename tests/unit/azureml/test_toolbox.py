"""A script that imports this package is told when its image would not have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from himl_container.azureml.toolbox import warn_without_toolbox
from himl_container.progress import SilentReporter


class _Heard(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize(
    ("script", "packages", "warned"),
    [
        ("from health_azure import submit_to_azure_if_needed\n", ["python"], True),
        ("def f():\n    import health_ml.utils\n", ["hi-ml-tools"], True),
        ("import himl_container\n", ["himl-container-job"], False),
        ("from health_azure import RUN_CONTEXT\n", ["hi-ml-azure"], False),
        ("import health_azure_of_ours\n# import health_azure\n", ["python"], False),
    ],
)
def test_who_is_warned(tmp_path: Path, script: str, packages: list[str], warned: bool) -> None:
    (tmp_path / "train.py").write_text(script)
    (tmp_path / "lock.toml").write_text("".join(f'[[packages]]\nname = "{name}"\n' for name in packages))
    heard = _Heard()
    warn_without_toolbox(tmp_path / "train.py", tmp_path / "lock.toml", heard)
    assert [("train.py imports" in text) for text in heard.warnings] == [True] * warned


@pytest.mark.parametrize("text", [None, b"\xff\xfe"])
def test_what_cannot_be_read_is_no_reason(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "train.py").write_bytes(text)
    heard = _Heard()
    warn_without_toolbox(tmp_path / "train.py", tmp_path / "lock.toml", heard)
    assert heard.warnings == []
