"""Whether the image of a script has this package, where the script imports it."""

from __future__ import annotations

import re
from pathlib import Path

from himl_container.progress import Reporter

_NEEDS = r"^[ \t]*(?:from|import)[ \t]+(health_azure|health_ml|himl_container)\b"
_GIVES = r'\bname = "(?:himl-container|himl-container-job|hi-ml|hi-ml-azure)"'


def warn_without_toolbox(script: Path, lock_file: Path, reporter: Reporter) -> None:
    """Warn when a script imports this package, or hi-ml's, and its environment has none of them: the run would fail.

    It is a warning and no error, because an import may be one that the run never comes to, and the base image may
    have the package.
    """
    try:
        wanted = re.search(_NEEDS, script.read_text(encoding="utf-8"), re.MULTILINE)
        given = re.search(_GIVES, lock_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return
    if wanted and not given:
        reporter.warn(
            f"{script.name} imports {wanted[1]}, which the environment does not have: add himl-container-job to its "
            "pip packages ('make job-wheel' makes the wheel; docs/moving-from-hi-ml.md)"
        )
