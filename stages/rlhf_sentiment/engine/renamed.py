"""The old settings: the flat keys of the first version and of trl, and the settings that they became.

`check`, `convert`, the command lines of the stages and RLHFConfig take their hints from this table.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Became(NamedTuple):
    """What an old key became.

    Attributes:
        settings: the keys in params.yaml. Empty where no setting is equal.
        note: what is different now, as a clause.
    """

    settings: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return (f"is now {either(self.settings, 'and')}" if self.settings else "has no setting now") + note


def either(names: tuple[str, ...] | list[str], word: str = "or") -> str:
    """Return names as a phrase.

    Example:
        >>> either(["sft.cut", "reward.cut", "ppo.steps"])
        'sft.cut, reward.cut or ppo.steps'
    """
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _to(*settings: str, note: str = "") -> Became:
    return Became(settings, note)


_MODEL = _to("base.model", note="base.revision pins a model of the hub to a commit")
_TOKENS = _to("ppo.max_new_tokens", "generation.max_new_tokens")
_DATASET = _to("data.hub.dataset", note="data.source is then hub, and data.hub.revision pins a commit")
_RESULTS = Became(note="results are in metrics/, plots/ and reports/")
_MODELS = Became(note="the stages write to models/, and your own model goes below models/pretrained")
_DATA = Became(note="your own files go below data/raw, and data.source names them")
_REWARD = Became(note="the stage reward trains the reward model from models/sft")
_TRACKER = _to("report_to", note="the package of the tracker must be installed")
_SCHEDULE = Became(note="the learning rate falls linearly to 0")
_LENGTHS = Became(note="responses have any length up to ppo.max_new_tokens")
_LOGGED = Became(note="each step has a row in plots/")
_PRINTED = Became(note="the stages print what they do")
_ONE = Became(note="the pipeline runs on one device")

RENAMED: dict[str, Became] = {
    # Models
    "model": _MODEL,
    "model_name": _MODEL,
    "model_name_or_path": _MODEL,
    "base_model": _MODEL,
    "sft_model_path": _MODEL,
    "tokenizer_name": Became(note="a model has its own tokenizer"),
    "reward_model": _REWARD,
    "reward_model_name": _REWARD,
    "reward_model_path": _REWARD,
    # Texts
    "dataset": _DATASET,
    "dataset_name": _DATASET,
    "query_dataset": _DATASET,
    "data_path": _DATA,
    "max_length": _to("sft.max_length", "reward.max_length", note="max_new_tokens of ppo and generation limits a response"),
    "max_seq_length": _to("sft.max_length", "reward.max_length"),
    "max_new_tokens": _TOKENS,
    "response_length": _TOKENS,
    "output_max_length": _TOKENS,
    "output_min_length": _LENGTHS,
    "min_length": _LENGTHS,
    "temperature": _to("generation.temperature", "ppo.temperature"),
    "top_p": _to("generation.top_p", note="the rollouts of PPO are never truncated by top-p"),
    "top_k": Became(note="responses are never truncated by top-k"),
    "do_sample": Became(note="responses are always sampled"),
    "num_samples": _to("evaluate.num_samples"),
    "eval_samples": _to("evaluate.num_samples"),
    "num_eval_samples": _to("evaluate.num_samples"),
    # Supervised fine-tuning and the reward model
    "num_train_epochs": _to("sft.epochs", "reward.epochs"),
    "num_epochs": _to("sft.epochs", "reward.epochs"),
    "epochs": _to("sft.epochs", "reward.epochs"),
    "per_device_train_batch_size": _to("sft.batch_size", "reward.batch_size"),
    "sft_epochs": _to("sft.epochs"),
    "sft_lr": _to("sft.learning_rate"),
    "sft_learning_rate": _to("sft.learning_rate"),
    "sft_batch_size": _to("sft.batch_size"),
    "reward_epochs": _to("reward.epochs"),
    "reward_model_epochs": _to("reward.epochs"),
    "reward_lr": _to("reward.learning_rate"),
    "reward_model_lr": _to("reward.learning_rate"),
    "reward_learning_rate": _to("reward.learning_rate"),
    "reward_batch_size": _to("reward.batch_size"),
    "reward_model_batch_size": _to("reward.batch_size"),
    # PPO
    "batch_size": _to("ppo.batch_size", note="ppo.micro_batch_size must divide it"),
    "mini_batch_size": _to("ppo.minibatches", "ppo.micro_batch_size", note="ppo.minibatches is the number of parts of a batch"),
    "gradient_accumulation_steps": _to("ppo.minibatches", note="ppo.minibatches is the number of parts of a batch"),
    "backward_batch_size": Became(note="mini_batch_size and gradient_accumulation_steps give it"),
    "ppo_epochs": _to("ppo.ppo_epochs"),
    "num_ppo_epochs": _to("ppo.ppo_epochs"),
    "lr": _to("ppo.learning_rate"),
    "learning_rate": _to("ppo.learning_rate"),
    "ppo_lr": _to("ppo.learning_rate"),
    "ppo_learning_rate": _to("ppo.learning_rate"),
    "steps": _to("ppo.steps", note="one step samples one batch"),
    "num_steps": _to("ppo.steps", note="one step samples one batch"),
    "ppo_steps": _to("ppo.steps", note="one step samples one batch"),
    "max_steps": _to("ppo.steps", note="one step samples one batch"),
    "total_episodes": _to("ppo.steps", note="a step has ppo.batch_size episodes"),
    "kl_coef": _to("ppo.kl_coef"),
    "init_kl_coef": _to("ppo.kl_coef"),
    "adap_kl_ctrl": _to("ppo.kl_target", note="null means a constant coefficient"),
    "target": _to("ppo.kl_target", note="in nats per response"),
    "horizon": _to("ppo.kl_horizon"),
    "kl_penalty": Became(note="the penalty is the log ratio of the two policies at each token"),
    "target_kl": Became(note="ppo.kl_stop stops by the KL from the fine-tuned model, which is another figure"),
    "early_stopping": Became(note="ppo.kl_stop stops by the KL from the fine-tuned model"),
    "gamma": _to("ppo.gamma"),
    "lam": _to("ppo.lam"),
    "gae_lambda": _to("ppo.lam"),
    "cliprange": _to("ppo.clip_range"),
    "clip_epsilon": _to("ppo.clip_range"),
    "cliprange_value": _to("ppo.clip_range_value"),
    "vf_coef": _to("ppo.vf_coef"),
    "max_grad_norm": _to("ppo.max_grad_norm"),
    "missing_eos_penalty": _to("ppo.missing_eos_penalty"),
    "use_score_scaling": _to("ppo.normalise_reward"),
    "use_score_norm": _to("ppo.normalise_reward"),
    "whiten_rewards": Became(note="advantages are always whitened, and ppo.normalise_reward scales the reward"),
    "score_clip": Became(note="ppo.normalise_reward scales the reward"),
    "ratio_threshold": Became(note="ppo.kl_stop ends a run that moves too far"),
    "bf16": _to("ppo.dtype"),
    "fp16": Became(note="ppo.dtype is float32 or bfloat16"),
    # Optimizers
    "weight_decay": Became(note="AdamW has no weight decay here"),
    "warmup_steps": _SCHEDULE,
    "warmup_ratio": _SCHEDULE,
    "lr_scheduler_type": _SCHEDULE,
    # Files and reports
    "data_dir": _DATA,
    "cache_dir": Became(note="the variable HF_HOME names the folder for downloads"),
    "model_dir": _MODELS,
    "save_dir": _MODELS,
    "checkpoint_dir": Became(note="checkpoints are in .checkpoints/"),
    "results_dir": _RESULTS,
    "output_dir": _RESULTS,
    "log_dir": Became(note="trackers write below runs/"),
    "logging_dir": Became(note="trackers write below runs/"),
    "use_wandb": _to("report_to", note="true is wandb, which must be installed, and false is none"),
    "log_with": _TRACKER,
    "wandb_project": Became(note="the variable WANDB_PROJECT names the project"),
    "tracker_project_name": Became(note="the tracker's own variables name the project"),
    "project_name": Became(note="the tracker's own variables name the project"),
    "exp_name": Became(note="`dvc exp run --name NAME` names an experiment"),
    "task_name": Became(note="`dvc exp run --name NAME` names an experiment"),
    "run_name": Became(note="`dvc exp run --name NAME` names an experiment"),
    "logging_steps": _LOGGED,
    "log_freq": _LOGGED,
    "log_interval": _LOGGED,
    "eval_steps": _to("ppo.validation_every"),
    "eval_every": _to("ppo.validation_every"),
    "save_steps": _to(*(f"checkpoint_every.{stage}" for stage in ("base", "sft", "reward", "ppo"))),
    "save_freq": _to("checkpoint_every.ppo"),
    "verbose": _PRINTED,
    "log_level": _PRINTED,
    "num_workers": _ONE,
    "world_size": _ONE,
    "random_seed": _to("seed"),
    "remove_unused_columns": Became(note="the stages read only the columns that they need"),
    "optimize_cuda_cache": Became(note="the stages manage memory"),
    "optimize_device_cache": Became(note="the stages manage memory"),
    "gradient_checkpointing": Became(note="ppo.micro_batch_size lowers the memory"),
}


def plain(key: str) -> str:
    """Return a key as RENAMED has it."""
    return key.lstrip("-").replace("-", "_").lower()


def is_old(tree: Mapping[str, Any]) -> bool:
    """Return whether settings are an old, flat file: no key is a section, and some key is an old one."""
    sections = any(isinstance(value, dict) for value in tree.values())
    return not sections and any(plain(key) in RENAMED for key in tree)
