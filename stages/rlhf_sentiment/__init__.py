"""RLHF of a small language model, from Python. Importing the package runs nothing; each name is imported when it is first used.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline, run_evaluation
    comparison = run_complete_pipeline(RLHFConfig(), num_steps=50)

docs/python.md has it all.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import Comparison as Comparison
    from .comparison import run_evaluation as run_evaluation
    from .config import ConfigError as ConfigError
    from .judge import Judge as Judge
    from .models import load_policy as load_policy
    from .models import load_reward_model as load_reward_model
    from .models import load_tokenizer as load_tokenizer
    from .notebook import PreferenceDataProcessor as PreferenceDataProcessor
    from .notebook import RewardModel as RewardModel
    from .notebook import TunedPolicy as TunedPolicy
    from .notebook import train_ppo as train_ppo
    from .pipeline import RLHFConfig as RLHFConfig
    from .pipeline import run_complete_pipeline as run_complete_pipeline
    from .run import StageError as StageError

# Public name -> the module that has it.
_NAMES = {
    "Comparison": "comparison",
    "ConfigError": "config",
    "Judge": "judge",
    "PreferenceDataProcessor": "notebook",
    "RLHFConfig": "pipeline",
    "RewardModel": "notebook",
    "StageError": "run",
    "TunedPolicy": "notebook",
    "load_policy": "models",
    "load_reward_model": "models",
    "load_tokenizer": "models",
    "run_complete_pipeline": "pipeline",
    "run_evaluation": "comparison",
    "train_ppo": "notebook",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
