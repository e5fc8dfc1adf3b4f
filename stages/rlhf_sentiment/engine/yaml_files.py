"""Read the YAML of a file of settings.

Each fault of the file is one line with the path, and with line and column where they are known.
"""

import errno
import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError
from .messages import cut, shown

_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except for two kinds of values, which are those of YAML 1.2, as DVC reads and writes it.

    `1e-05` is a number. DVC writes `-S ppo.learning_rate=1e-5` so, and plain PyYAML reads it as a string. `yes`, `no`, `on` and
    `off` are words. DVC writes a label `no` without quotes, and plain PyYAML reads it as false.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node. A constructor may raise any error on a wrong value. The error is converted here."""
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:
            raise _fault(node, f"{shown(node.value)} cannot be read as {node.tag.rpartition(':')[2]}") from None


def _fault(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """Return a mapping whose keys are different words. YAML requires this, but PyYAML silently keeps the last of two."""
    names: set[str] = set()
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            raise _fault(key, "`<<` is not read here; write the keys out")
        name = loader.construct_object(key, deep=True)
        if not isinstance(name, str):
            raise _fault(key, f"the key {shown(name)} is not a word; put it in quotes if it is meant as one")
        if name in names:
            raise _fault(key, f"duplicate key {cut(name)}")
        names.add(name)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
# Replace the forms of truth values. Each first letter of a value has its list of forms.
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in forms if tag != _BOOL]
    for letter, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)

_LARGEST = 2**18  # bytes; params.yaml has 12,000
_MOST_VALUES = 10_000
_MOST_FAULTS = 20


def read_yaml(path: Path, what: str = "sections such as `ppo:`") -> dict[str, Any]:
    """Return the mapping in a YAML file. Its keys are words.

    Args:
        path: of the file.
        what: the mapping should have, for the message.

    Raises:
        ConfigError: no such file, not YAML (with line and column), too large, or not a mapping.
    """
    text = _text_of(path)
    try:
        tree = _tree(text)
    except yaml.reader.ReaderError as error:
        line, column = _place(text, error.position)
        why = f"the character {shown(text[error.position])} is not allowed"
        raise ConfigError(f"{path}: not YAML at line {line}, column {column}: {why}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{path}: not YAML{where}: {said}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not settings: the YAML is nested too deeply") from None
    except Exception as error:  # no such error is known; the file's content would cause it
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        held = "is empty" if tree is None else f"holds a {type(tree).__name__}"
        raise ConfigError(f"{path}: {held}; it should have {what}")
    return tree


def _text_of(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe could block
            raise OSError(errno.EINVAL, "no ordinary file")
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        where = "; run from the repository's root or give --params FILE" if path == Path("params.yaml") else ""
        raise ConfigError(f"{path}: no such file of settings{where}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a name that no file can have
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if len(data) > _LARGEST:
        raise ConfigError(f"{path}: has more than {_LARGEST:,} bytes, which settings never need")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place(data.decode("latin-1"), error.start)
        why = f"byte {error.object[error.start]:#04x} at line {line}, column {column}"
        raise ConfigError(f"{path}: not UTF-8 ({why}); save it as UTF-8") from None


def _place(text: str, position: int) -> tuple[int, int]:
    """Return line and column of a position in a text. Both count from 1."""
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")


def _tree(text: str) -> Any:
    """Return the one document of a YAML text, after a check of its size with all aliases expanded."""
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _count(node, {})
    return loader.construct_document(node)


def _count(node: yaml.Node, counted: dict[yaml.Node, int]) -> int:
    """Return the number of values in a node. Each node is counted once, so that repeated aliases cost no time.

    Raises:
        MarkedYAMLError: there are more than 10,000 values, or an alias contains itself.
    """
    if node not in counted:
        counted[node] = 0  # not known yet
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        each = itertools.chain.from_iterable(inner) if isinstance(node, yaml.MappingNode) else inner
        counted[node] = 1 + sum(_count(one, counted) for one in each)
    if counted[node] == 0:
        raise _fault(node, "its aliases lead back to itself")
    if counted[node] > _MOST_VALUES:
        raise _fault(node, f"more than {_MOST_VALUES:,} values, with each alias written out")
    return counted[node]
