"""Which Python distributions the Conda packages bring, so that pip's solver takes them as given.

A package list of Conda does not say it. A package that is ``noarch: python`` or depends on ``python`` is taken to bring
the distribution of its own name; where the names differ, the table below or ``pypi-names`` of the settings says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from himl_container.environment.model import LockedConda

DIFFERENT = {
    "antlr-python-runtime": "antlr4-python3-runtime",
    "brotli-python": "brotli",
    "dask-core": "dask",
    "docker-py": "docker",
    "gst-python": "",
    "keras-base": "keras",
    "libtorch": "",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "py-lief": "lief",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "pyarrow-core": "pyarrow",
    "pyqt": "pyqt5",
    "pytables": "tables",
    "python-blosc": "blosc",
    "python-build": "build",
    "python-duckdb": "duckdb",
    "python-fastjsonschema": "fastjsonschema",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-installer": "installer",
    "python-kaleido": "kaleido",
    "python-levenshtein": "levenshtein",
    "python-libarchive-c": "libarchive-c",
    "python-lmdb": "lmdb",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "python_abi": "",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "pytorch-mutex": "",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-gpu": "tensorflow",
}
"""Conda package -> distribution, where they differ; empty for a package that brings none.

Names as published on conda-forge, defaults and the pytorch channel; only what other packages' requirements name.
"""

_PYTHON = re.compile(r"python(?:$|[ \[=<>!~])")


def normalised(name: str) -> str:
    """Return a distribution's name in one spelling (PEP 503, "Normalized Names")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def provided(conda: Sequence[LockedConda], pypi_names: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """Return the distributions that the packages bring, normalised name -> version as pip compares it, sorted.

    A package whose version pip cannot read is left out: no requirement could be compared with it.

    :param pypi_names: the user's own pairs; an empty distribution says that the package brings none.
    """
    from packaging.version import InvalidVersion, Version

    names = DIFFERENT | dict(pypi_names)
    found: dict[str, str] = {}
    for record in conda:
        if record.name == "python" or not (record.name in names or _is_python(record)):
            continue
        distribution = normalised(names.get(record.name, record.name))
        try:
            version = str(Version(record.version))
        except InvalidVersion:
            continue
        if distribution and (distribution not in found or record.name == distribution):
            found[distribution] = version
    return dict(sorted(found.items()))


def _is_python(record: LockedConda) -> bool:
    return record.noarch == "python" or any(_PYTHON.match(text.rpartition("::")[2]) for text in record.depends)
