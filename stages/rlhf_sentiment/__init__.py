"""RLHF of a small language model, from Python.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline, run_evaluation
    comparison = run_complete_pipeline(RLHFConfig(), num_steps=50)

Importing the package runs nothing. Each public name is imported at its first use. docs/python.md describes them all.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.comparison import Comparison as Comparison
    from .api.comparison import run_evaluation as run_evaluation
    from .api.config import RLHFConfig as RLHFConfig
    from .api.pipeline import run_complete_pipeline as run_complete_pipeline
    from .api.preferences import PreferenceDataProcessor as PreferenceDataProcessor
    from .api.scoring import RewardModel as RewardModel
    from .api.tuning import TunedPolicy as TunedPolicy
    from .api.tuning import train_ppo as train_ppo
    from .engine.errors import ConfigError as ConfigError
    from .engine.errors import StageError as StageError
    from .evaluation.classifier import Judge as Judge
    from .models.loading import load_policy as load_policy
    from .models.loading import load_reward_model as load_reward_model
    from .models.loading import load_tokenizer as load_tokenizer

# Public name -> the module that defines it.
_NAMES = {
    "Comparison": "api.comparison",
    "ConfigError": "engine.errors",
    "Judge": "evaluation.classifier",
    "PreferenceDataProcessor": "api.preferences",
    "RLHFConfig": "api.config",
    "RewardModel": "api.scoring",
    "StageError": "engine.errors",
    "TunedPolicy": "api.tuning",
    "load_policy": "models.loading",
    "load_reward_model": "models.loading",
    "load_tokenizer": "models.loading",
    "run_complete_pipeline": "api.pipeline",
    "run_evaluation": "api.comparison",
    "train_ppo": "api.tuning",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from .engine.arithmetic import pin_for_python

    pin_for_python()  # before the module loads numpy and torch
    return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
