"""RLHF of a small language model, from Python. Importing the package runs nothing; each name is imported when it is first used.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline, run_evaluation
    comparison = run_complete_pipeline(RLHFConfig(), num_steps=50)

docs/python.md has it all.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.config import RLHFConfig as RLHFConfig
    from .api.data import PreferenceDataProcessor as PreferenceDataProcessor
    from .api.evaluation import Comparison as Comparison
    from .api.evaluation import run_evaluation as run_evaluation
    from .api.pipeline import run_complete_pipeline as run_complete_pipeline
    from .api.training import RewardModel as RewardModel
    from .api.training import TunedPolicy as TunedPolicy
    from .api.training import train_ppo as train_ppo
    from .config import ConfigError as ConfigError
    from .judge import Judge as Judge
    from .models import load_policy as load_policy
    from .models import load_reward_model as load_reward_model
    from .models import load_tokenizer as load_tokenizer
    from .run import StageError as StageError

# Public name -> the module that has it.
_NAMES = {
    "Comparison": "api.evaluation",
    "ConfigError": "config",
    "Judge": "judge",
    "PreferenceDataProcessor": "api.data",
    "RLHFConfig": "api.config",
    "RewardModel": "api.training",
    "StageError": "run",
    "TunedPolicy": "api.training",
    "load_policy": "models",
    "load_reward_model": "models",
    "load_tokenizer": "models",
    "run_complete_pipeline": "api.pipeline",
    "run_evaluation": "api.evaluation",
    "train_ppo": "api.training",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
