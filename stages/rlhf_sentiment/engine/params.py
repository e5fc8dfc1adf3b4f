"""Read params.yaml into checked, frozen settings.

Each stage has its own `Settings` class, which names the sections that the stage loads. `load` reads only these sections. The
params of a stage in dvc.yaml are therefore the settings that its code can see. The code has no default values.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigError, OldSettingsError
from .hints import hint, keys_of, meant, section
from .messages import cut, listed, shown, warn
from .renamed import RENAMED, is_old, plain
from .yaml_files import read_yaml as read_yaml

_MOST_FAULTS, _MOST_OLD_KEYS = 20, 100
_SAME = ("seed", "device", "report_to", "extends")  # keys that are not sections, then and now
Files = Sequence[tuple[Path, dict[str, Any]]]


def matching(pattern: str, what: str) -> AfterValidator:
    """Return a check that a string has a form.

    Args:
        pattern: a regular expression for the whole string.
        what: the form in words, for the message.
    """

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {what} (got {shown(text)})")
        return text

    return AfterValidator(check)


def pin(name: str, revision: str | None, section: str, local: bool) -> None:
    """Refuse a hub id without a revision, and a revision of something that is not a hub id.

    Args:
        name: the model or data set.
        revision: of the hub id.
        section: for the message.
        local: whether `name` is not a hub id.

    Raises:
        ValueError: the message says which of the two.
    """
    if local and revision is not None:
        raise ValueError(f"{section}.revision belongs to a hub id, and {name} is none; leave it empty")
    if not local and revision is None:
        raise ValueError(
            f"{section}.revision: pin {name} to a commit hash of the hub (or name a branch, such as main, which may move)"
        )


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Device = Annotated[str, matching(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", "auto, cpu, mps, cuda or cuda:N")]


class Settings(BaseModel):
    """A section of params.yaml. Every key is required, no other key is allowed, and no type is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).model_fields:
            raise AttributeError(_unknown(name, "", keys_of(type(self))))
        raise ConfigError(f"{name}: settings are frozen; config.changed(**{{'ppo.steps': 50}}) returns a changed copy")

    if not TYPE_CHECKING:  # mypy would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                return super().__getattr__(name)
            raise AttributeError(_unknown(name, "", keys_of(type(self))))


S = TypeVar("S", bound=BaseModel)


def load(schema: type[S], path: Path, whole: bool = False) -> S:
    """Read the sections that `schema` names from `path` and the files that it extends, and check them.

    Args:
        schema: a `Settings` class whose fields are sections.
        path: a file of settings.
        whole: also refuse sections that `schema` does not name. Only the stage `check` sets this.

    Raises:
        ConfigError: one line for each fault, with the file and the key.
    """
    files = extended(path, schema)
    tree = merged(files, schema)
    for file, content in files if whole else ():
        if isinstance(content.get("use_wandb"), bool):
            warn("check", f"{file}: use_wandb {RENAMED['use_wandb']}; write `report_to` instead")
    if not whole:
        tree = {key: value for key, value in tree.items() if key in schema.model_fields}
    with explained(schema, path, files):
        return schema.model_validate(tree)


def extended(path: Path, schema: type[BaseModel], by_dvc: bool = True) -> Files:
    """Return the content of a file of settings, of the file that it extends, and so on.

    Args:
        path: the file. A key `extends` at its top names another file, relative to the folder of the first.
        schema: the class of the settings, for hints.
        by_dvc: refuse `extends` in params.yaml, which DVC reads without it.

    Raises:
        OldSettingsError: a file has the keys of an old version.
        ConfigError: a file is absent or damaged, or extends itself.
    """
    files: list[tuple[Path, dict[str, Any]]] = []
    while True:
        tree = read_yaml(path)
        if is_old(tree):
            raise OldSettingsError(*_old_lines(tree, path, schema))
        files.append((path, tree))
        if "extends" not in tree:
            return files
        above = tree.pop("extends")
        if not isinstance(above, str) or not above:
            raise ConfigError(f"{path}: extends: should name a file of settings (got {shown(above)})")
        if by_dvc and path.name == "params.yaml":
            raise ConfigError(
                f"{path}: extends: DVC reads every section from params.yaml itself; "
                f"`python stages/convert.py {path} --out {path} --force` writes them there"
            )
        below, path = path, Path(os.path.normpath(path.parent / above))
        if not os.path.exists(path):
            raise ConfigError(f"{below}: extends: {path}: no such file; the name is relative to the folder of {below}")
        if path.resolve() in [file.resolve() for file, _ in files]:
            raise ConfigError(f"{below}: extends: {path} extends this file again; one of them must not")


def merged(files: Files, schema: type[BaseModel]) -> dict[str, Any]:
    """Return the settings of files, of which each extends the next. The values of the first file come first."""
    tree: dict[str, Any] = {}
    for _, above in reversed(files):
        tree = _over(_without_use_wandb(above), tree, schema)
    return tree


def _without_use_wandb(tree: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which the old key `use_wandb` has become `report_to`. False changes nothing."""
    if not isinstance(tree.get("use_wandb"), bool):
        return tree
    new = {"report_to": "wandb"} if tree["use_wandb"] else {}
    return {key: value for key, value in tree.items() if key != "use_wandb"} | new


def _over(above: dict[str, Any], below: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """Return `below` with the values of `above`. Only sections are merged, so a mapping such as data.columns is replaced."""
    tree = below | above
    for name in above.keys() & below.keys():
        inner = section(schema, name)
        if inner and isinstance(above[name], dict) and isinstance(below[name], dict):
            tree[name] = _over(above[name], below[name], inner)
    return tree


@contextmanager
def explained(schema: type[BaseModel], path: Path, files: Files = ()) -> Iterator[None]:
    """Turn pydantic's errors about settings into lines that name the file and the key.

    Args:
        schema: the class that checks the settings.
        path: the file, for the message.
        files: the file and those that it extends. A line names the file that has the key.

    Raises:
        ConfigError: one line for each fault.
    """
    try:
        yield
    except ValidationError as error:
        faults = error.errors(include_url=False)
        absent = [".".join(map(str, fault["loc"])) for fault in faults if fault["type"] == "missing"]
        lines = [_of_absent(absent, files[-1][0] if files else path)] if absent else []
        others = [fault for fault in faults if fault["type"] != "missing"]
        known, most = [*keys_of(schema), *(("extends",) if files else ())], _MOST_FAULTS - len(lines)
        lines += [f"{_file_of(fault['loc'], files, path)}: {_explain(fault, known)}" for fault in others[:most]]
        if len(others) > most:
            lines.append(f"{path}: and {len(others) - most} more")
        raise ConfigError(*lines) from None


def _file_of(place: tuple[int | str, ...], files: Files, path: Path) -> Path:
    """Return the file whose value counts at a place, or `path` where no file has one."""
    for file, tree in files:
        inner: Any = tree
        for part in place:
            inner = inner.get(part, files) if isinstance(inner, dict) else inner  # `files` is not a value of a tree
        if place and inner is not files:
            return file
    return path


def _of_absent(names: list[str], path: Path) -> str:
    """Return a line for all keys that a file lacks."""
    if path.name == "params.yaml":
        new = (
            "; to compute as older versions did, write `arithmetic: fast` and `threads: auto`" if "arithmetic" in names else ""
        )
        return f"{path}: {listed(names)}: missing; no setting has a default{new}"
    return f"{path}: {listed(names)}: missing; to take them from another file, name it at the top: `extends: params.yaml`"


def _explain(fault: Any, known: Sequence[str]) -> str:
    """Return a line for one of pydantic's errors: the key, what is wrong, and what would be right."""
    *parents, last = fault["loc"] or ("settings",)
    above, key = ".".join(map(str, parents)), cut(".".join(map(str, fault["loc"])) or "settings")
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; {hint(str(last), above, known)}"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if fault["type"] == "model_type":
        return f"{key}: should be a section with keys of its own (got {shown(fault['input'])})"
    if fault["type"] == "bool_type":  # in YAML 1.2, `yes` and `no` are words
        return f"{key}: should be true or false (got {shown(fault['input'])})"
    if fault["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message} (got {shown(fault['input'])})"


def _unknown(name: str, above: str, known: Sequence[str]) -> str:
    """Return what an unknown attribute may mean."""
    note = RENAMED[plain(name)].note if plain(name) in RENAMED and meant(name, above, known) else ""
    return f"{cut(name)}: no such setting; {hint(name, above, known)}" + (f" {note}" if note else "")


def _old_lines(tree: dict[str, Any], path: Path, schema: type[BaseModel]) -> list[str]:
    """Return the lines about a file with the keys of an old version: one for each key, after a line about the file."""
    lines = [f"{path}: has flat keys, as in old versions; `python stages/convert.py {path} --out NEW.yaml` converts it"]
    known = [*keys_of(schema), "extends"]
    for name in list(tree)[:_MOST_OLD_KEYS]:
        if plain(name) in RENAMED:
            said = str(RENAMED[plain(name)])
        else:
            said = (
                "is the same" if name in _SAME or ("." in name and name in known) else f"unknown key; {hint(name, '', known)}"
            )
        lines.append(f"{path}: {cut(name)}: {said}")
    return lines
