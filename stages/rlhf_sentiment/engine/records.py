"""Read and write JSON lines, JSON and CSV. The same content always gives the same bytes."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import StageError
from .messages import listed, shown
from .outputs import writing

if TYPE_CHECKING:  # most stages read and write no table, and pandas takes long to import
    import pandas as pd

Row = dict[str, Any]


# The type of a column or key -> its name in a message.
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}


def read_rows(path: str | Path, columns: dict[str, type]) -> list[Row]:
    """Return the rows of a JSON-lines file.

    Args:
        path: the file.
        columns: the columns that each row must have, with their types. A row may have more columns.

    Raises:
        StageError: a line is not a JSON object, lacks a column, or has another type (the message has the line number); the file
            is not UTF-8, or has no row.
    """
    rows = []
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                rows.append(_checked(json.loads(line), columns, f"{path}, line {number}"))
    except json.JSONDecodeError as error:
        raise StageError(f"{path}, line {len(rows) + 1}: not JSON: {error.msg} at column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path}: not UTF-8, after about {len(rows)} lines: {error.reason}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or very deep nesting
        raise StageError(f"{path}, line {len(rows) + 1}: cannot be read as JSON: {error}") from None
    if not rows:
        raise StageError(f"{path}: holds no rows")
    return rows


def read_json(path: str | Path, keys: dict[str, type]) -> Row:
    """Return the object in a JSON file.

    Args:
        path: the file.
        keys: the keys that the object must have, with their types.

    Raises:
        StageError: the file has no JSON object in UTF-8, or a key is missing or of another type.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, or very deep nesting
        raise StageError(f"{path}: not JSON: {error}; run `dvc repro`") from None
    return _checked(tree, keys, str(path))


def _checked(row: Any, columns: dict[str, type], where: str) -> Row:
    if not isinstance(row, dict):
        raise StageError(f"{where}: holds {type(row).__name__}, not an object")
    absent = [column for column in columns if column not in row]
    if absent:
        raise StageError(f"{where}: lacks {listed(absent)}; it has {listed(row) or 'nothing'}")
    for column, kind in columns.items():
        value = row[column]
        whole_for_float = kind is float and type(value) is int
        if type(value) is not kind and not whole_for_float:
            raise StageError(f"{where}: {column} should be {_KINDS[kind]} (got {shown(value)})")
    return row


def read_table(path: str | Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Return a CSV as a table.

    Raises:
        StageError: the file is not a CSV, or lacks one of `columns`.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not a CSV: {error}; run `dvc repro`") from None
    absent = [column for column in columns if column not in table]
    if absent:
        raise StageError(f"{path}: lacks {listed(absent)}; it has {listed(list(table))}; run `dvc repro`")
    return table


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write one JSON object a line."""
    with writing(path) as aside, open(aside, "w", encoding="utf-8", newline="\n") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def rounded(value: Any, digits: int = 4) -> Any:
    """Return `value` with every float in it rounded, so that tiny differences do not change the metrics."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return round(float(value), digits) if isinstance(value, float) else value


def write_metrics(path: str | Path, tree: Row) -> None:
    """Write figures as JSON, with four digits after the point.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    with writing(path) as aside:
        text = json.dumps(rounded(tree), indent=2, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_table(path: str | Path, rows: "Iterable[Row] | pd.DataFrame", digits: int = 5) -> None:
    """Write a CSV for `dvc plots`. An absent value is written as `nan`, because DVC draws an empty cell as 0."""
    import pandas as pd

    with writing(path) as aside:
        table = pd.DataFrame(rows).round(digits)
        # Python before 3.13 quotes no carriage return, and a reader then sees the end of a row.
        broken = any("\r" in cell for row in table.values for cell in row if isinstance(cell, str))
        quoting: Any = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
        table.to_csv(aside, index=False, na_rep="nan", lineterminator="\n", quoting=quoting)
