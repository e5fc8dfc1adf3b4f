"""Change values in the text of a file of settings. Its comments stay."""

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML


def edited(text: str, differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Return a YAML text with other values, in the form that DVC writes: lists in block style, and null as an empty value.

    Args:
        text: the text. It has the sections of all keys.
        differing: the old and the new value by key, as `differences` returns them.
    """
    file = YAML()
    file.preserve_quotes, file.width, file.default_flow_style = True, 128, False
    tree = file.load(text)
    for key, (_, new) in differing.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner[section]
        inner[last] = new
    written = io.StringIO()
    file.dump(tree, written)
    return written.getvalue()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the keys, such as ppo.steps, whose values differ, with both values.

    A section whose own keys differ counts as one value.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and value.keys() == before.keys():
            found |= differences(before, value, f"{above}{key}.")
        elif value != before:
            found[above + key] = before, value
    return found
