"""Hints for a name that is not a setting: the settings that it may mean, and the command that changes one."""

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from .messages import cut
from .renamed import RENAMED, either, plain
from .yaml_files import read_yaml

SECTIONS = {"prepare": "data", "sample": "generation"}  # stages whose section has another name


def section(schema: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the class of a section, or of a section that may be null. None for a value and for an unknown name."""
    field = schema.model_fields.get(name)
    kinds = () if field is None else (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def keys_of(schema: type[BaseModel], above: str = "") -> list[str]:
    """Return every key of a class of settings, such as ppo and ppo.steps."""
    keys = []
    for name in schema.model_fields:
        inner = section(schema, name)
        keys += [above + name, *(keys_of(inner, f"{above}{name}.") if inner else ())]
    return keys


def keys_in(tree: dict[str, Any], above: str = "") -> list[str]:
    """Return every key of a tree of settings."""
    keys = []
    for name, value in tree.items():
        keys += [above + name, *(keys_in(value, f"{above}{name}.") if isinstance(value, dict) else ())]
    return keys


def meant(name: str, inside: str, known: Sequence[str]) -> list[str]:
    """Return the settings that a wrong name may mean, the most likely first.

    Args:
        name: the last part of the wrong key.
        inside: the section in which it is, such as `ppo`. Empty at the top.
        known: all keys.
    """
    name = plain(cut(name))
    became = RENAMED[name].settings if name in RENAMED else ()
    leaves: dict[str, list[str]] = {}
    for key in known:
        leaves.setdefault(key.rpartition(".")[2], []).append(key)
    above = f"{inside}." if inside else ""
    siblings = [key.rpartition(".")[2] for key in known if key.startswith(above) and "." not in key[len(above) :]]
    here = [above + leaf for leaf in dict.fromkeys(key.rpartition(".")[2] for key in became) if leaf in siblings]
    if here:
        return here
    if name in RENAMED or name in leaves:
        return list(dict.fromkeys((*(key for key in became if key in known), *leaves.get(name, ()))))
    if close := difflib.get_close_matches(name, siblings, n=1):
        return [above + close[0]]
    close = difflib.get_close_matches(name, leaves, n=1, cutoff=0.8)
    return leaves[close[0]] if close else []


def hint(name: str, inside: str, known: Sequence[str]) -> str:
    """Return what a name that is not a setting may mean, for the end of a message.

    The arguments are those of `meant`.
    """
    above, _, last = name.rpartition(".")
    within = f"{inside}.{above}".strip(".")
    if above and within in known:
        if f"{within}.{last}" in known:
            return f"write it as a section, `{above.replace('.', ':` with `')}:` with `{last}:` below"
        return hint(last, within, known)
    if found := meant(name, inside, known):
        return f"did you mean {either(found)}?"
    if not inside and plain(name) in RENAMED:
        return str(RENAMED[plain(name)]).removeprefix("has no setting now; ")
    return "params.yaml lists all keys"


def command(stage: str, words: Sequence[str], params: Path) -> str | None:
    """Return what to do in place of options such as `--steps 100`. None if no option is a setting.

    Args:
        stage: the stage. Its own section comes first.
        words: the command line of the stage.
        params: a complete file of settings.
    """
    known = keys_in(read_yaml(params))
    values = [key for key in known if not any(other.startswith(f"{key}.") for other in known)]
    changes, notes = [], []
    for word, after in zip(words, [*words[1:], ""], strict=True):
        option, given, value = word.partition("=")
        if not option.startswith("--") or len(option) < 4:
            continue
        name = plain(option)
        found = meant(name, "", values)
        near = f"{SECTIONS.get(stage, stage)}."
        same = (near + key.rpartition(".")[2] for key in found)
        own = [key for key in (*found, *same) if key.startswith(near) and key in values]
        if found:
            text = value if given else after if after and not after.startswith("--") else "VALUE"
            if name == "use_wandb":  # it was true or false, or an option without a value
                text = "none" if text.lower() == "false" else "wandb"
            changes.append(f"-S {shlex.quote(f'{(own or found)[0]}={cut(text)}')}")
        elif name in RENAMED:
            notes.append(f"{option} {RENAMED[name]}")
    runs = [f"run `dvc exp run {' '.join(changes)}`"] if changes else []
    return "; ".join(runs + notes) or None
