"""Find the rows of a JSON file that is one object instead of a list.

| object            | example                                                     |
|-------------------|-------------------------------------------------------------|
| rows below a key  | `{"data": [{"text": "a", "label": 1}]}`                     |
| columns as lists  | `{"text": ["a", "b"], "label": [1, 0]}`                     |
| columns by index  | `{"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}}` |
| rows by index     | `{"0": {"text": "a", "label": 1}}`                          |
| a single row      | `{"text": "a", "label": 1}`                                 |

`DataFrame.to_json` of pandas writes the third, and with `orient="index"` the fourth.
"""

from pathlib import Path
from typing import Any

from ..engine.errors import StageError
from ..engine.messages import listed
from ..engine.records import Row


def rows_in(whole: Row, path: Path) -> list[Any]:
    """Return the rows of an object that is a whole file. They are not checked.

    Args:
        whole: the object. Below the key `data`, or its only key, may be a list of rows.
        path: the file, for messages.

    Raises:
        StageError: the columns have different lengths, or the object is none of the five kinds.
    """
    values = list(whole.values())
    below = whole.get("data", values[0] if len(values) == 1 else None)
    if isinstance(below, list) and _are_objects(below) and not _are_messages(below):
        return below
    if values and all(isinstance(value, list) and not _are_objects(value) for value in values) and "columns" not in whole:
        if len({len(value) for value in values}) > 1:
            lengths = listed([f"{name} {len(value)}" for name, value in whole.items()])
            raise StageError(f"{path}: the columns have different lengths ({lengths}); each should have one value for each row")
        return [dict(zip(whole, cells, strict=True)) for cells in zip(*values, strict=True)]
    if _are_objects(values) and all(value.keys() == values[0].keys() for value in values):
        if all(key.isdecimal() for key in whole):
            return values
        if values[0] and all(key.isdecimal() for key in values[0]):
            return [{name: cells[key] for name, cells in whole.items()} for key in values[0]]
    if not values or all(isinstance(value, list | dict) and not _are_messages(value) for value in values):
        raise StageError(
            f"{path} is one object with the keys {listed(whole)}, and not rows; it should be a list of objects, "
            'such as [{"text": "fine", "label": 1}], or columns as lists'
        )
    return [whole]


def _are_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _are_messages(value: Any) -> bool:
    """Return whether a value is one message, or a list of messages, of a conversation."""
    messages = value if isinstance(value, list) else [value]
    return _are_objects(messages) and all("role" in message or "from" in message for message in messages)
