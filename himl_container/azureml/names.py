"""Names and ids: what AzureML accepts, how long a run may take, recovery ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from himl_container.azureml.constants import EXPERIMENT_RUN_SEPARATOR
from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import Run

_LONGEST = 255
"""Characters of an experiment's name."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def to_azure_friendly_string(x: str | None) -> str | None:
    """Return the text with everything but letters, digits and ``_`` replaced by single underscores; None stays None.

    Letters of every script are kept, and nothing is trimmed at the ends (hi-ml's rule).
    """
    return None if x is None else re.sub(r"[\W_]+", "_", x)


def azure_experiment_name(text: str) -> str:
    """Return the text as AzureML takes it for the name of an experiment; hi-ml promised so, and its rule falls short.

    AzureML takes no letters but those of ASCII, and none but a letter or a digit at the beginning.
    """
    ascii_only = "".join(one if one.isascii() else "_" for one in text)
    return (to_azure_friendly_string(ascii_only) or "").lstrip("_")[:_LONGEST] or "experiment"


def run_duration_string_to_seconds(s: str) -> int | None:
    """Return the whole seconds of a duration like ``30m``, ``1.5h`` or ``2d``; None for an empty text (no limit).

    :raises WrongValue: (a ValueError) neither empty nor a number followed by one of s, m, h, d.
    """
    text = s.strip()
    if not text:
        return None
    try:
        return int(float(text[:-1]) * _SECONDS[text[-1]])
    except (KeyError, ValueError, OverflowError):
        said = f"Invalid duration {text!r}: it must be a number followed by one of 's', 'm', 'h', 'd'"
        raise WrongValue(said, hint="for example 30m, 1.5h or 2d") from None


def create_run_recovery_id(run: Run) -> str:
    """Return ``<experiment name>:<run id>``, which :func:`split_recovery_id` takes apart again."""
    return f"{run.experiment.name}{EXPERIMENT_RUN_SEPARATOR}{run.id}"


def split_recovery_id(id: str) -> tuple[str, str]:  # noqa: A002  # hi-ml's argument name
    """Return experiment name and run id of a recovery id.

    :param id: ``<experiment>:<run id>``; or a run id alone that has its experiment's name in it, as those of runs that
        AzureML names do (``<experiment>_<seconds>_<hexadecimal>``, ``<experiment>_<number>``).
    :raises WrongValue: (a ValueError) it is neither.
    """
    text = id.strip()
    parts = text.split(EXPERIMENT_RUN_SEPARATOR)
    if len(parts) > 2:
        raise WrongValue(f"recovery_id must be in the format: 'experiment_name:run_id', but got: {id}")
    if len(parts) == 2:
        return parts[0], parts[1]
    found = re.fullmatch(r"(\w+)_\d+_[0-9a-f]+", text) or re.fullmatch(r"(\w+)_\d+", text)
    if found is None:
        hint = "write it as 'experiment_name:run_id'"
        raise WrongValue(f"The recovery ID was not in the expected format: {id}", hint=hint)
    return found[1], text
