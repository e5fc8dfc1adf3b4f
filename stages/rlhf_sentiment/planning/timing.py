"""Time a step of PPO on models of one and of two layers with random weights, and extrapolate to all layers."""

import copy
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ..models.adapters import POLICY, add_adapter
from ..models.cache import cache_of
from ..models.devices import precision
from ..models.forward import step
from ..models.loading import made_fast
from ..sampling.rollout import Responses, batch_of, score_tokens
from ..settings.ppo import PPOSettings
from .passes import Lengths

_TOKENS = 1024  # of a timed micro-batch, at most


def seconds_of_step(
    config: PretrainedConfig, settings: PPOSettings, lengths: Lengths, device: torch.device
) -> tuple[float, str]:
    """Return the seconds of a step with responses of full length, and how they were found.

    A step samples the responses, scores them with three models or four, and trains one model or two for some epochs.
    """
    whole = lengths.mean + lengths.response
    rows = max(1, min(int(_TOKENS / whole), settings.micro_batch_size, settings.batch_size // settings.minibatches))
    deep = config.get_text_config().num_hidden_layers
    found = []
    for layers in range(1, min(deep, 2) + 1):
        model = _model(config, layers, settings, device)
        found.append(_times(model, settings, rows, lengths, device))
    one, two = found[0], found[-1]
    forward, both, token = (a + (deep - 1) * max(b - a, 0.0) for a, b in zip(one, two, strict=True))
    parts, critics = settings.batch_size / rows, int(settings.critic == "separate")
    prompt = parts * forward * lengths.mean / whole
    total = prompt + lengths.response * token + (3 + critics) * parts * forward
    total += settings.ppo_epochs * parts * (1 + critics) * both
    return total, f"{rows} rows on one and two of {deep} layers with random weights, extrapolated"


def _model(config: PretrainedConfig, layers: int, settings: PPOSettings, device: torch.device) -> PreTrainedModel:
    less = copy.deepcopy(config)
    text = less.get_text_config()
    text.num_hidden_layers = layers
    if vars(text).get("layer_types"):  # some kinds compute it from the number of layers
        text.layer_types = text.layer_types[:layers]
    model = made_fast(AutoModelForCausalLM.from_config(less, dtype=torch.float32)).to(device).eval()
    if settings.lora is not None:
        add_adapter(model.requires_grad_(False), settings.lora, POLICY, "models/sft", "ppo.lora")
    return model


def _times(
    model: PreTrainedModel, settings: PPOSettings, rows: int, lengths: Lengths, device: torch.device
) -> tuple[float, float, float]:
    """Return the seconds of scoring some rows, of their forward and backward pass, and of a token of the whole batch."""
    prompt = max(1, round(lengths.mean))
    batch: Responses = batch_of([[2] * prompt] * rows, [[3] * lengths.response] * rows, 1, device)
    dtype = "float32" if settings.dtype == "auto" else settings.dtype

    def train() -> None:
        with precision(dtype, device):
            log_probs = score_tokens(model, batch, settings.temperature).log_probs
        log_probs.sum().backward()

    def score() -> None:
        with torch.no_grad(), precision(dtype, device):
            score_tokens(model, batch, settings.temperature, with_entropy=True)

    cache = cache_of(model, prompt + lengths.response)
    ids = torch.full((settings.batch_size, prompt + lengths.response // 2), 2, device=device)
    places = torch.arange(ids.shape[1], device=device).expand_as(ids)

    def sample() -> None:
        with torch.no_grad(), precision(dtype, device):
            step(model, ids[:, :1], None, places[:, -1:], cache)

    with torch.no_grad(), precision(dtype, device):
        step(model, ids, None, places, cache)
    return _seconds(score, device), _seconds(train, device), _seconds(sample, device)


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    """Return the shorter time of two runs. The first one also loads the kernels."""
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times)
