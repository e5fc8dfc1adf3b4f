"""Tell the memory and the time of a run before its work: `python stages/ppo.py --plan`, and what a run is refused for."""

import importlib
from math import ceil
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, GPT2Config, PretrainedConfig

from ..engine.arithmetic import Computing
from ..engine.errors import StageError
from ..engine.launch import environments_of
from ..engine.params import load
from ..engine.ranks import SHARDS, size
from ..engine.records import read_rows
from ..models.adapters import has_adapter
from ..models.devices import prepare_device, quiet
from ..models.loading import load_tokenizer
from ..models.tokens import encode_prompt
from ..models.weights import from_pretrained
from ..ppo.actors import REWARD_MODEL, SFT
from ..settings.base import BaseSettings
from ..settings.counts import number_of
from ..settings.ppo import PPOSettings
from ..settings.reward import RewardSettings
from .memory import HEAP, HEAP_ADAPTERS, KERNELS, Plan, fitting, plan_of
from .passes import Lengths
from .timing import seconds_of_step

PARAMS = Path("params.yaml")
PROMPTS = "data/prepared/prompts.jsonl"
_PROMPT = 16  # tokens of a prompt where there are no prompts yet
_ERROR = 1.2  # a plan is at most so many times too high (benchmarks/memory.py)
_MINUTES = 120  # seconds, from which minutes are printed
_LATER = ("pandas", "safetensors.torch")  # libraries that a run loads after its models


class Before(Computing):
    """The settings that say what the models will be, before there are any."""

    base: BaseSettings
    reward: RewardSettings


class Known(NamedTuple):
    """What is known of a run before its work.

    Attributes:
        config: of the language model.
        reward_adapts: whether the reward model is an adapter.
        lengths: of the sequences.
        validation: prompts of a measurement.
        assumed: what had to be assumed, in words.
    """

    config: PretrainedConfig
    reward_adapts: bool
    lengths: Lengths
    validation: int
    assumed: list[str]


def known_of(settings: PPOSettings, params: Path) -> Known:
    """Return what the files and the settings say of a run. Models and prompts here belong to params.yaml alone.

    Raises:
        StageError: the base model's configuration cannot be read, or the model has no positions for the responses.
    """
    assumed = []
    ours = params.absolute() == PARAMS.absolute()
    if ours and Path(SFT).exists():
        config = from_pretrained(AutoConfig, SFT)
    else:
        config = _config_of(load(Before, params).base)
        assumed.append(f"{f'there is no {SFT}' if ours else f'{SFT} is not that of {params}'}, so the model is that of `base`")
    reward_adapts = False
    if settings.lora is not None:
        there = ours and Path(REWARD_MODEL).exists()
        reward_adapts = has_adapter(REWARD_MODEL, SFT) if there else load(Before, params).reward.lora is not None
    asked = settings.validation_prompts
    counts, lengths = {"train": 0, "validation": 0}, [_PROMPT]
    if ours and Path(PROMPTS).exists() and Path(SFT).exists():
        tokenizer, rows = load_tokenizer(SFT), read_rows(PROMPTS, {"prompt": str, "split": str})
        lengths = [len(encode_prompt(tokenizer, row, PROMPTS)) for row in rows if row["split"] == "train"] or lengths
        counts["validation"] = sum(row["split"] == "validation" for row in rows)
    else:
        counts["validation"] = asked if isinstance(asked, int) else settings.batch_size
        assumed.append(f"there are no prompts of this run, so each has {_PROMPT} tokens")
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    if (room := positions - settings.max_new_tokens) < 1:
        raise StageError(
            f"ppo.max_new_tokens {settings.max_new_tokens} leaves no room for a prompt in the model's {positions} positions; "
            f"lower it to less than {positions}"
        )
    lengths = [length for length in lengths if length <= room] or [room]
    known = Lengths(max(lengths), sum(lengths) / len(lengths), settings.max_new_tokens, settings.max_new_tokens)
    return Known(config, reward_adapts, known, number_of(asked, counts["validation"]), assumed)


def _config_of(base: BaseSettings) -> PretrainedConfig:
    if base.model != "scratch":
        return from_pretrained(AutoConfig, base.model, revision=base.revision)
    sizes = {"vocab_size": base.vocab_size, "n_positions": base.context, "n_embd": base.width}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    return GPT2Config(**sizes, **ids, n_layer=base.layers, n_head=base.heads)


def available_of(device: torch.device) -> int:
    """Return the bytes that the device has for a run, with what this process has already."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


def _libraries(device: torch.device, with_adapters: bool) -> tuple[int, float]:
    """Return the bytes of the interpreter and its libraries in this process, and how much the allocator holds."""
    if device.type == "cuda":
        return 0, 1.0
    for name in (*_LATER, *(["peft"] if with_adapters else [])):
        importlib.import_module(name)
    return psutil.Process().memory_info().rss + KERNELS, HEAP_ADAPTERS if with_adapters else HEAP


def _planned(settings: PPOSettings, known: Known, device: torch.device, ranks: int) -> Plan:
    libraries, heap = _libraries(device, settings.lora is not None)
    how = settings.model_copy(update={"dtype": "float32" if settings.dtype == "auto" else settings.dtype})
    return plan_of(known.config, how, known.reward_adapts, known.lengths, known.validation, libraries, heap, ranks)


def advice(settings: PPOSettings, known: Known, device: torch.device, ranks: int, available: int) -> str:
    """Return the settings to change so that a run fits, beginning with the micro-batch that would.

    Args:
        settings: the section `ppo`.
        known: of the run.
        device: where it runs.
        ranks: processes that share the rows.
        available: bytes for one process.
    """
    minibatch = settings.batch_size // settings.minibatches
    largest = min(settings.micro_batch_size, ceil(minibatch / ranks))

    def total(micro: int) -> int:
        return _planned(settings.model_copy(update={"micro_batch_size": micro}), known, device, ranks).total

    if largest > 1 and (fits := fitting(largest, total, available, minibatch)) is not None:
        return f"lower ppo.micro_batch_size to {fits}, which would fit"
    others = ["lower ppo.batch_size or ppo.max_new_tokens"]
    changes = {
        "gradient_checkpointing: true": not settings.gradient_checkpointing,
        "critic: shared": settings.critic == "separate",
        "frozen_dtype: bfloat16": settings.frozen_dtype == "float32" and settings.lora is None,
        "lora": settings.lora is None,
    }
    others += [f"set ppo.{change}" for change, helps in changes.items() if helps]
    return f"no ppo.micro_batch_size would fit; {', or '.join(others)}"


def refuse(settings: PPOSettings, params: Path, device: torch.device) -> None:
    """Refuse a run that cannot fit into the memory of the device.

    Responses may be shorter than `ppo.max_new_tokens`, and an estimate can be too high. So a run is refused only where
    responses of one token would not fit either, with an estimate that is 20 % too high. The cache has memory for full
    responses in any case.

    Raises:
        StageError: the message names the settings to change.
    """
    known, available = known_of(settings, params), available_of(device) // (size() if device.type == "cpu" else 1)
    plan = _planned(settings, known, device, size())
    if plan.total <= available:
        return
    shortest = known._replace(lengths=known.lengths._replace(response=1))
    if _planned(settings, shortest, device, size()).total > _ERROR * available:
        raise StageError(shortage(plan, available, advice(settings, known, device, size(), available)))


def shortage(plan: Plan, available: int, what: str) -> str:
    """Return the line that says that a run does not fit. `what` says what to change."""
    return f"this run needs about {_gib(plan.total)} of memory, and the device has {_gib(available)} for it; {what}"


def after_shortage(settings: PPOSettings, params: Path, device: torch.device) -> str:
    """Return the line for a run that found too little memory on a GPU: the micro-batch that would fit, by the plan."""
    available = available_of(device) + (torch.cuda.memory_reserved(device) if device.type == "cuda" else 0)
    what = advice(settings, known_of(settings, params), device, size(), available)
    return f"the memory of {device} is not enough; {what}"


def tell_plan(computing: Computing, settings: PPOSettings, params: Path) -> None:
    """Print the memory and the time of a run.

    With FSDP, it is the memory of undivided weights, which is too much. Such a run is not refused.

    Raises:
        StageError: the run does not fit. The message names the settings to change.
    """
    quiet()
    device = prepare_device(computing, "ppo")
    environments = [] if computing.launcher is None else environments_of(computing.launcher)
    ranks, divided = max(1, len(environments)), any(SHARDS in variables for variables in environments)
    known = known_of(settings, params)
    plan = _planned(settings, known, device, ranks)
    available = available_of(device) // (ranks if device.type == "cpu" else 1)
    _print_table(plan, available, device)
    lengths = known.lengths
    said = [*known.assumed, f"prompts have {lengths.mean:.0f} tokens on average and responses {lengths.response}, their most"]
    if settings.dtype == "auto":
        said.append("dtype auto is taken as float32")
    if divided:
        said.append(
            "FSDP divides the weights, their gradients and the optimizer, but the table has all of them for each process"
        )
    print(f"ppo: {'; '.join(said)}")
    fits, each = plan.total <= available, " in each process" if ranks > 1 else ""
    verdict = "fits" if fits else "may fit with FSDP" if divided else "does not fit"
    print(f"ppo: the peak is {plan.total / 2**20:,.0f} MiB{each}, and the run {verdict}", flush=True)
    if not fits and not divided:
        raise StageError(shortage(plan, available, advice(settings, known, device, ranks, available)))
    seconds, how = seconds_of_step(known.config, settings, lengths, device)
    at_once = ranks if device.type != "cpu" else max(1, min(ranks, (psutil.cpu_count() or 1) // torch.get_num_threads()))
    step, run = seconds / at_once, settings.steps * seconds / at_once
    time = f"{run:.0f} s" if run < _MINUTES else f"{run / 60:.0f} minutes"
    print(f"ppo: a step takes about {step:.1f} s, and {settings.steps} steps take {time} ({how})", flush=True)


def _print_table(plan: Plan, available: int, device: torch.device) -> None:
    largest, weights = plan.largest, plan.weights
    rows = {
        "interpreter and libraries": plan.libraries,
        "weights of the policy": weights.policy,
        "weights of the reference": weights.reference,
        "weights of the reward model": weights.reward,
        "weights of the critic": weights.critic,
        "optimizer": largest.optimizer,
        "gradients": largest.gradients,
        "experience of a batch": largest.experience,
        f"most at once: {largest.name}": largest.rest,
        "blocks that the allocator keeps": round((plan.heap - 1) * largest.all),
        "total": plan.total,
        f"available on {device}": available,
    }
    table = Table("part", "MiB", box=box.SIMPLE)
    table.columns[1].justify = "right"
    for name, count in rows.items():
        table.add_row(name, f"{count / 2**20:,.0f}", end_section=name.startswith("blocks"))
    Console(width=100).print(table)


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
