"""From params.yaml to checked, frozen settings.

Each stage names the sections it loads in a `Settings` class of its own; `load` reads them and nothing else, so that
a stage's parameters in dvc.yaml and the settings its code can see are the same list. No default lives in code.
"""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


def matching(pattern: str, what: str) -> AfterValidator:
    """A check that a string has a form, told in words where it has not."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {what} (got {text!r})")
        return text

    return AfterValidator(check)


def pin(name: str, revision: str | None, section: str, local: bool) -> None:
    """Refuse a hub id without a revision, and a revision of what is no hub id.

    Raises:
        ValueError: saying which of the two.
    """
    if local and revision is not None:
        raise ValueError(f"{section}.revision is of a hub id, and {name} is none; set it to null")
    if not local and revision is None:
        raise ValueError(
            f"{section}.revision: pin {name} to a commit hash of the hub (or name a branch, such as main, which may move)"
        )


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Device = Annotated[str, matching(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:N")]


class ConfigError(ValueError):
    """The settings are wrong. Each line of the message names a key and says what would be right.

    Example:
        >>> try:
        ...     RLHFConfig(device="gpu")
        ... except ConfigError as error:
        ...     print(error)
        params.yaml: device: should be auto, cpu, mps, cuda or cuda:N (got 'gpu')
    """


class Settings(BaseModel):
    """A section of params.yaml: every key required, none unknown, no type converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ConfigError(f"{name}: settings are frozen; config.changed(**{{'ppo.steps': 50}}) makes others of them")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, and `1e-05` is a number, as in YAML 1.2.

    DVC writes `-S ppo.learning_rate=1e-5` as `1e-05`, which plain PyYAML reads back as a string.
    """


def _no_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping whose keys differ: YAML says they must, and PyYAML would keep the last in silence."""
    keys = [loader.construct_object(key) for key, _ in node.value]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise yaml.MarkedYAMLError(problem=f"the key {key} stands twice", problem_mark=node.value[number][0].start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _no_duplicates)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not YAML (with line and column), or not a mapping.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run from the repository's root or give --params FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}: not YAML{where}: {str(getattr(error, 'problem', error)).splitlines()[0]}") from None
    except (ValueError, RecursionError) as error:  # a date or a number that cannot be; a bottomless nest
        raise ConfigError(f"{path}: not settings: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, not sections such as `ppo:`")
    return tree


S = TypeVar("S", bound=BaseModel)


def load(schema: type[S], path: Path, whole: bool = False) -> S:
    """The sections that `schema` names, read from `path` and checked.

    Args:
        schema: a `Settings` class whose fields are sections.
        path: a params file.
        whole: also refuse sections that `schema` does not name (only `check` reads the file whole).

    Raises:
        ConfigError: one line for each fault, naming the file and the key.
    """
    tree = read_yaml(path)
    if not whole:
        tree = {key: value for key, value in tree.items() if key in schema.model_fields}
    with explained(schema, path):
        return schema.model_validate(tree)


@contextmanager
def explained(schema: type[BaseModel], path: Path) -> Iterator[None]:
    """Turn pydantic's error about a tree of settings into lines that name the file and the key.

    Raises:
        ConfigError: one line for each fault.
    """
    try:
        yield
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(fault, schema)}" for fault in error.errors())) from None


def _explain(fault: Any, schema: type[BaseModel]) -> str:
    """One line for one of pydantic's faults: the key, what is wrong, what would be right."""
    *parents, last = fault["loc"] or ("settings",)
    key = ".".join(map(str, fault["loc"])) or "settings"
    if fault["type"] == "extra_forbidden":
        known = _keys(schema, parents)
        close = difflib.get_close_matches(str(last), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{key}: missing; it has no default"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if fault["type"] == "model_type":
        return f"{key}: should be a section with keys of its own (got {fault['input']!r:.60})"
    if fault["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message} (got {fault['input']!r})"


def _keys(schema: type[BaseModel], parents: list[Any]) -> list[str]:
    """The keys that are known below `parents`."""
    for name in parents:
        inner = schema.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        schema = inner
    return list(schema.model_fields)
