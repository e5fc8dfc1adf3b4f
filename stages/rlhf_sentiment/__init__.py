"""The organs that the stages share. Importing the package runs nothing; each name is imported when it is first used."""

import importlib
from typing import Any

# Public name -> the module that has it.
_NAMES = {
    "Judge": "judge",
    "load_policy": "models",
    "load_reward_model": "models",
    "respond": "rollout",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
