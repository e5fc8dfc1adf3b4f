"""The settings of a run as one object, which is read from params.yaml, changed, and written back."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from ..engine.command_line import STAGES
from ..engine.errors import ConfigError
from ..engine.messages import cut, shown
from ..engine.outputs import writing
from ..engine.params import Files, explained, extended, merged, read_yaml
from ..settings.edit import differences as differences
from ..settings.edit import edited
from ..settings.whole import Params

ROOT = STAGES.parent


class RLHFConfig(Params):
    """All settings of a run, frozen, and checked as `python stages/check.py` checks them.

    The settings come from params.yaml in the current folder, or else from the repository's. Sections are attributes. The
    comments in params.yaml describe each setting, with units and ranges.

    Raises:
        ConfigError: an unknown key, a wrong value, or a combination that cannot work. Each has a line that says what is right.

    Example:
        >>> config = RLHFConfig()
        >>> config.ppo.kl_coef
        0.3
        >>> RLHFConfig(seed=2, **{"ppo.steps": 50}).ppo.steps
        50
        >>> RLHFConfig(**{"ppo.stepz": 50})
        Traceback (most recent call last):
        rlhf_sentiment.engine.errors.ConfigError: settings: ppo.stepz: unknown key; did you mean ppo.steps?
    """

    def __init__(self, **changes: Any) -> None:
        """Read the settings, and change some of them.

        Args:
            changes: values by key, such as `seed=2`, `ppo={"steps": 50}` or `**{"ppo.steps": 50}`.
        """
        path = Path("params.yaml")
        self._read(path if path.is_file() else ROOT / path, changes)

    @classmethod
    def from_file(cls, path: str | Path, **changes: Any) -> Self:
        """Read the settings from another file, such as one of profiles/, and change some of them.

        Args:
            path: the file. It is complete, or its key `extends` names the file with the other settings.
            changes: values by key, as above.

        Raises:
            ConfigError: as above, or there is no such file.

        Example:
            >>> RLHFConfig.from_file("profiles/imdb-local.yaml", **{"ppo.steps": 50}).data.source
            'data/raw/imdb'
        """
        if not isinstance(path, str | Path):
            raise ConfigError(f"path should name a file of settings (got {shown(path)})")
        config = cls.__new__(cls)
        config._read(Path(os.path.expanduser(path)), changes)
        return config

    def changed(self, **changes: Any) -> Self:
        """Return a copy of these settings with some changed.

        Args:
            changes: values by key, as above.

        Raises:
            ConfigError: as above.

        Example:
            >>> RLHFConfig().changed(**{"ppo.critic": "shared"}).ppo.critic
            'shared'
        """
        config = type(self).__new__(type(self))
        config._check(_with(self.model_dump(), changes), Path("settings"))
        return config

    def _read(self, path: Path, changes: Mapping[str, Any]) -> None:
        files = extended(path, type(self))
        tree = _with(merged(files, type(self)), changes)
        self._check(tree, path, [(Path("settings"), _with({}, changes)), *files])

    def _check(self, tree: dict[str, Any], path: Path, files: Files = ()) -> None:
        with explained(type(self), path, files):
            super().__init__(**tree)


def _with(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a tree of settings, with new values at some keys, such as ppo.steps."""
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{cut(key)}: {cut(section)} is a value, not a section")
        if isinstance(value, BaseModel):
            value = value.model_dump()
        elif getattr(value, "ndim", None) == 0:  # a numpy number, as from a sweep
            value = value.item()
        whole_section = not sections and isinstance(value, dict) and isinstance(inner.get(key), dict)
        inner[last] = inner[key] | value if whole_section else value
    return tree


def write_params(config: Params, path: Path = Path("params.yaml")) -> None:
    """Write the settings that differ to params.yaml, and print each of them. Comments and line ends stay."""
    differing = differences(read_yaml(path), config.model_dump(mode="json"))
    if not differing:
        return
    for key, (old, new) in differing.items():
        print(f"{path}: {key}: {shown(old)} becomes {shown(new)}")
    text = edited(path.read_text(encoding="utf-8"), differing)
    with writing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\r\n" if b"\r\n" in path.read_bytes() else "\n")
