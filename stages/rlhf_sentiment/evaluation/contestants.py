"""The models that are compared, in the order of every table, and where each lies."""

MODELS = {"base": "models/base", "sft": "models/sft", "rlhf": "models/ppo"}
