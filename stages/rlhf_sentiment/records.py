"""Tables on disk: JSON lines, JSON and CSV, written so that the same content gives the same bytes."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .run import StageError, writing

Row = dict[str, Any]


def read_rows(path: str | Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a JSON-lines file.

    Raises:
        StageError: a line that is no JSON object or lacks one of `columns` (with its number), or no row at all.
    """
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise StageError(f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}") from None
            if not isinstance(row, dict):
                raise StageError(f"{path}, line {number}: holds {type(row).__name__}, not an object")
            absent = [column for column in columns if column not in row]
            if absent:
                raise StageError(f"{path}, line {number}: lacks {', '.join(absent)}; it has {', '.join(row)}")
            rows.append(row)
    if not rows:
        raise StageError(f"{path}: holds no rows")
    return rows


def read_json(path: str | Path, keys: Sequence[str]) -> Row:
    """The values of `keys` in a JSON file.

    Raises:
        StageError: not a JSON object, or a key is missing.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
        return {key: tree[key] for key in keys}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise StageError(f"{path}: not a JSON object with {', '.join(keys)} ({error!r}); run `dvc repro`") from None


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write one JSON object a line."""
    with writing(path) as aside, open(aside, "w", encoding="utf-8", newline="\n") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def rounded(value: Any, digits: int = 4) -> Any:
    """`value` with every float in it rounded, so that metrics do not change without cause."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return round(float(value), digits) if isinstance(value, float) else value


def write_metrics(path: str | Path, tree: Row) -> None:
    """Write a JSON file for `dvc metrics`: four digits, refuses NaN."""
    with writing(path) as aside:
        text = json.dumps(rounded(tree), indent=2, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_table(path: str | Path, rows: Iterable[Row] | pd.DataFrame, digits: int = 5) -> None:
    """Write a CSV for `dvc plots`. An absent value is `nan`: DVC draws a blank cell as 0."""
    with writing(path) as aside:
        table = pd.DataFrame(rows).round(digits)
        table.to_csv(aside, index=False, na_rep="nan", lineterminator="\n")
