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


_MODEL = _to("base.model", note="base.revision is the commit of a hub model, or a branch, which may move")
_TOKENS = _to("ppo.max_new_tokens", "generation.max_new_tokens")
_DATASET = _to(
    "data.hub.dataset",
    note="data.source is hub or names your own files, and data.hub.revision is a commit, or a branch, which may move",
)
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
_OPTIMIZER = Became(note="the optimizer is AdamW without weight decay")
_PRECISION = Became(note="ppo.dtype is float32 or bfloat16")
_MEMORY = Became(note="the stages manage memory, and ppo.micro_batch_size lowers it")
_DERIVED = Became(note="ppo.batch_size and ppo.minibatches give it")
_FORWARD = Became(note="ppo.micro_batch_size is the number of responses per forward pass")
_MEASURED = Became(note="ppo.validation_every says when PPO is measured, and metrics/ has the figures of each stage")
_KEPT = Became(note="checkpoint_every says when a checkpoint is written, and a stopped run resumes from its last one")
_LOADING = Became(note="the stages load and shuffle the texts themselves")
_STOP = Became(note="a response ends at EOS")
_NOT_PUSHED = Became(note="no stage uploads a model")
_TRACKERS_OWN = Became(note="the tracker's own variables configure it")
_NAMES = Became(note="`dvc exp run --name NAME` names an experiment")
_EAGER = Became(note="no stage compiles a model or takes other kernels")
_KIND = Became(note="all models are decoders, and all of their weights are trained")

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
    "num_mini_batches": _to("ppo.minibatches"),
    "micro_batch_size": _to("ppo.micro_batch_size"),
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
    "adap_kl_ctrl": _to("ppo.kl_target", note="empty means a constant coefficient"),
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
    **dict.fromkeys(
        ("global_batch_size", "global_backward_batch_size", "local_batch_size", "local_mini_batch_size", "num_total_batches"),
        _DERIVED,
    ),
    **dict.fromkeys(("forward_batch_size", "local_rollout_forward_batch_size"), _FORWARD),
    **dict.fromkeys(("stop_token", "stop_token_id"), _STOP),
    **dict.fromkeys(("is_encoder_decoder", "is_peft_model", "model_adapter_name", "ref_adapter_name"), _KIND),
    "kl_estimator": Became(note="the penalty is the log ratio of the two policies at each token"),
    "compare_steps": _LOGGED,
    **dict.fromkeys(
        ("fp16", "fp16_full_eval", "bf16_full_eval", "fp16_opt_level", "half_precision_backend", "tf32"), _PRECISION
    ),
    # Optimizers
    "weight_decay": Became(note="AdamW has no weight decay here"),
    **dict.fromkeys(("optim", "optim_args", "optim_target_modules", "adafactor", "adam_epsilon", "adam_beta1"), _OPTIMIZER),
    "adam_beta2": Became(note="base.adam_beta2 is that of the base model alone"),
    **dict.fromkeys(("label_smoothing_factor", "neftune_noise_alpha"), Became(note="no stage changes the loss or adds noise")),
    "lr_scheduler_kwargs": _SCHEDULE,
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
    **dict.fromkeys(
        ("tracker_project_name", "project_name", "project", "tracker_kwargs", "project_kwargs", "trackio_space_id"),
        _TRACKERS_OWN,
    ),
    **dict.fromkeys(("exp_name", "task_name", "run_name"), _NAMES),
    "logging_steps": _LOGGED,
    "log_freq": _LOGGED,
    "log_interval": _LOGGED,
    **dict.fromkeys(("logging_strategy", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node"), _LOGGED),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), Became(note="dvc.yaml lists the stages")),
    **dict.fromkeys(
        ("eval_strategy", "evaluation_strategy", "eval_delay", "eval_on_start", "eval_accumulation_steps"), _MEASURED
    ),
    **dict.fromkeys(
        (
            "eval_do_concat_batches",
            "batch_eval_metrics",
            "prediction_loss_only",
            "include_for_metrics",
            "eval_use_gather_object",
        ),
        _MEASURED,
    ),
    **dict.fromkeys(
        ("num_sample_generations", "per_device_eval_batch_size", "metric_for_best_model", "greater_is_better"), _MEASURED
    ),
    **dict.fromkeys(("save_strategy", "save_total_limit", "save_only_model", "save_safetensors", "save_on_each_node"), _KEPT),
    **dict.fromkeys(("load_best_model_at_end", "resume_from_checkpoint", "overwrite_output_dir", "ignore_data_skip"), _KEPT),
    **dict.fromkeys(
        ("push_to_hub", "push_to_hub_if_best_kwargs", "push_to_hub_model_id", "push_to_hub_organization"), _NOT_PUSHED
    ),
    **dict.fromkeys(("push_to_hub_token", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo"), _NOT_PUSHED),
    **dict.fromkeys(("hub_always_push", "hub_revision"), _NOT_PUSHED),
    "eval_steps": _to("ppo.validation_every"),
    "eval_every": _to("ppo.validation_every"),
    "save_steps": _to(*(f"checkpoint_every.{stage}" for stage in ("base", "sft", "reward", "ppo"))),
    "save_freq": _to("checkpoint_every.ppo"),
    **dict.fromkeys(("verbose", "log_level", "log_level_replica", "disable_tqdm", "debug"), _PRINTED),
    **dict.fromkeys(("num_workers", "world_size", "local_rank", "accelerator_kwargs", "accelerator_config", "deepspeed"), _ONE),
    **dict.fromkeys(("fsdp", "fsdp_config", "ddp_backend", "ddp_timeout", "ddp_find_unused_parameters"), _ONE),
    **dict.fromkeys(("ddp_static_graph", "average_tokens_across_devices"), _ONE),
    **dict.fromkeys(("activation_checkpointing", "activation_checkpointing_kwargs"), _MEMORY),
    **dict.fromkeys(("enable_jit_checkpoint", "restore_callback_states_from_checkpoint"), _KEPT),
    **dict.fromkeys(("trackio_bucket_id", "trackio_static_space_id"), _TRACKERS_OWN),
    "include_num_input_tokens_seen": _LOGGED,
    **dict.fromkeys(("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ds3_gather_for_generation", "parallelism_config"), _ONE),
    **dict.fromkeys(
        ("no_cuda", "use_cpu", "use_mps_device", "use_ipex", "use_habana"), Became(note="device names the processor")
    ),
    **dict.fromkeys(("dataset_num_proc", "dataloader_num_workers", "dataloader_drop_last", "dataloader_pin_memory"), _LOADING),
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_prefetch_factor", "group_by_length", "label_names"), _LOADING
    ),
    **dict.fromkeys(
        ("length_column_name", "train_sampling_strategy", "dataloader_multiprocessing_context", "dataloader_in_order"), _LOADING
    ),
    **dict.fromkeys(
        ("data_seed", "full_determinism"), Became(note="seed and data.seed are the seeds, and each run is reproducible")
    ),
    "random_seed": _to("seed"),
    "remove_unused_columns": Became(note="the stages read only the columns that they need"),
    **dict.fromkeys(
        ("optimize_cuda_cache", "optimize_device_cache", "torch_empty_cache_steps", "auto_find_batch_size"), _MEMORY
    ),
    **dict.fromkeys(("gradient_checkpointing", "gradient_checkpointing_kwargs", "skip_memory_metrics", "use_cache"), _MEMORY),
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel", "liger_kernel_config"), _EAGER
    ),
}


_SECTIONS = ("checkpoint_every", "data", "base", "sft", "reward", "judge", "ppo", "generation", "evaluate")


def plain(key: str) -> str:
    """Return a key as RENAMED has it."""
    return key.lstrip("-").replace("-", "_").lower()


def is_old(tree: Mapping[str, Any]) -> bool:
    """Return whether settings are an old, flat file: no key is a section of today, and some key is an old one."""
    return not any(key in _SECTIONS for key in tree) and any(plain(key) in RENAMED for key in tree)
