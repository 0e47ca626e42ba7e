"""What ``OutputFileDatasetConfig.read_delimited_files()`` and its like do with an output's files.

The SDK sends blocks (``data/_dataprep_stub.py``), which become the engine's own transformations when the output is
registered, as ``data/_dataprep_helper.py`` does it in a job.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from himl_container.emulator.http import parse_json
from himl_container.errors import InputError

Transformation = Mapping[str, Any]

_HEADERS = ("no_header", "from_first_file", "all_files_different_headers", "all_files_same_headers")
"""``PromoteHeadersBehavior`` of the SDK, by its number."""

_ENCODINGS = ("utf8", "iso88591", "latin1", "ascii", "utf16", "utf32", "utf8bom", "windows1252")
"""``FileEncoding`` of the SDK, by its number."""

_TYPES: Mapping[int, str] = {0: "string", 1: "boolean", 2: "int", 3: "float", 4: "datetime"}
_TABULAR = frozenset({"read_delimited", "read_parquet", "read_json_lines"})


def transformations_of(text: str) -> tuple[Transformation, ...]:
    """Return the engine's transformations for blocks.

    :raises InputError: there is a block that is not known.
    """
    try:
        document = parse_json(text)
        blocks = [(block["type"], block["arguments"]) for block in document["blocks"]]
        return tuple(_known(str(kind))(arguments) for kind, arguments in blocks)
    except (ValueError, KeyError, TypeError, IndexError):
        raise InputError("what is to be done with the files of an output cannot be read") from None


def is_tabular(transformations: tuple[Transformation, ...]) -> bool:
    """Whether they make a table of files."""
    return any(name in _TABULAR for item in transformations for name in item)


def _delimited(arguments: Mapping[str, Any]) -> Transformation:
    return {
        "read_delimited": {
            "delimiter": str(arguments["separator"]),
            "header": _HEADERS[_index(arguments["columnHeadersMode"])],
            "encoding": _ENCODINGS[_index(arguments["fileEncoding"])],
            "support_multi_line": bool(arguments["handleQuotedLineBreaks"]),
            "empty_as_string": False,
            # The path stays until it is dropped, which the SDK adds as a step of its own.
            "include_path_column": True,
            "infer_column_types": False,
        }
    }


def _parquet(arguments: Mapping[str, Any]) -> Transformation:
    del arguments
    return {"read_parquet": {"include_path_column": True}}


def _columns(name: str) -> Callable[[Mapping[str, Any]], Transformation]:
    def transformation(arguments: Mapping[str, Any]) -> Transformation:
        return {name: [str(column) for column in arguments["columns"]["details"]["selectedColumns"]]}

    return transformation


def _partition(arguments: Mapping[str, Any]) -> Transformation:
    partition = {"path_column": "Path", "partition_format": str(arguments["partitionFormat"]), "ignore_errors": False}
    return {"extract_columns_from_partition_format": partition}


def _filter(arguments: Mapping[str, Any]) -> Transformation:
    row: dict[str, Any] = {"r": ["Function", [["row"], {"r": []}, arguments["expression"]]]}
    source = json.dumps({"r": ["Function", [[], {"r": []}, row]]})
    return {"filter": {"language": "Native", "function_source": source, "function_name": ""}}


def _sample(arguments: Mapping[str, Any]) -> Transformation:
    given = {
        "probability": float(arguments["probability"]),
        "probability_lower_bound": float(arguments["probabilityLowerBound"]),
        "seed": _index(arguments["seed"]),
    }
    return {"sample": {"sampler": "random_percent", "sampler_arguments": given}}


def _column_types(arguments: Mapping[str, Any]) -> Transformation:
    conversions = []
    for item in arguments["columnConversion"]:
        column, kind = str(item["column"]["details"]["selectedColumn"]), _TYPES[_index(item["typeProperty"])]
        formats = (item.get("typeArguments") or {}).get("dateTimeFormats")
        wanted: Any = (
            {"datetime": {"formats": [str(one) for one in formats]}} if kind == "datetime" and formats else kind
        )
        conversions.append({"columns": column, "column_type": wanted})
    return {"convert_column_types": conversions}


def _index(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


_KNOWN: Mapping[str, Callable[[Mapping[str, Any]], Transformation]] = {
    "ParseDelimitedBlock": _delimited,
    "ReadParquetFileBlock": _parquet,
    "DropColumnsBlock": _columns("drop_columns"),
    "KeepColumnsBlock": _columns("keep_columns"),
    "AddColumnsFromPartitionFormatBlock": _partition,
    "ExpressionFilterBlock": _filter,
    "TakeSampleBlock": _sample,
    "SetColumnTypesBlock": _column_types,
}


def _known(kind: str) -> Callable[[Mapping[str, Any]], Transformation]:
    name = kind.removeprefix("Microsoft.DPrep.")
    if name not in _KNOWN:
        raise InputError(f"the emulator does not know what {name[:100]!r} does with the files of an output")
    return _KNOWN[name]
