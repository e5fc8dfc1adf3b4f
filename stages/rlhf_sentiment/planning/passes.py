"""Count the memory of the passes of PPO, on the models' own code, with tensors that have no data.

torch's fake tensors (FakeTensorMode) have no memory. Each operation gives the shape of its result. `Live` adds up what exists
at the same time. So the count holds for every architecture, for adapters, and for recomputed layers. The work area inside one
operation is not counted.
"""

import copy
import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ..models.adapters import CRITIC, POLICY, REWARD, Trunk
from ..models.cache import RoomyLayer, cache_of
from ..models.devices import precision
from ..models.forward import step
from ..models.loading import fuse
from ..models.packing import BY_ROWS, Group, may_pack, packs
from ..models.value_head import Critic, reward_class
from ..ppo.actors import Actors, store
from ..rewards import reward_of_model
from ..sampling.rollout import ChosenLogProbs, draw, kl_of_logits
from ..settings.ppo import PPOSettings

FAKE = FakeTensorMode()  # fake tensors of two modes cannot meet


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations inside the block make, and that still exist.

    Attributes:
        now, peak: bytes at this moment, and the most so far.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """Count all tensors but those that are known already, such as the weights."""
        super().__init__()
        self.now = self.peak = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        tree_map_only(Tensor, self._count, made)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._counted:
            self._counted.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


class Lengths(NamedTuple):
    """How many tokens the sequences have.

    Attributes:
        longest: prompt.
        mean: length of the prompts.
        response: length of all responses.
        room: the most tokens of a response, for which the cache has memory.
    """

    longest: int
    mean: float
    response: int
    room: int


class Rows(NamedTuple):
    """Some rows of a batch as one packed row, or padded where the model does not pack: the arguments of a model.

    Attributes:
        inputs: of the trunk.
        kept: the M places before response tokens, for `logits_to_keep`. (M,)
        tokens: ids of the response tokens. (M,)
    """

    inputs: dict[str, Any]
    kept: Tensor
    tokens: Tensor


def empty_actors(config: PretrainedConfig, settings: PPOSettings, reward_adapts: bool) -> Actors:
    """Return the models of `actors_of` with fake tensors as weights.

    Args:
        config: of the language model.
        settings: the section `ppo`.
        reward_adapts: whether the reward model is an adapter, which is then taken to be as large as that of the policy.
    """
    config = copy.deepcopy(config)
    config.num_labels = 1
    with torch.device("meta"):  # adapters can be added there, and not to fake tensors
        policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        others = [
            AutoModelForCausalLM.from_config(config, dtype=torch.float32),
            *(reward_class(config)(config) for _ in range(2)),
        ]
    trunk = None if settings.lora is None else Trunk(policy, "models/sft")
    if trunk is not None and settings.lora is not None:
        for name in (POLICY, REWARD, CRITIC):
            if (name != REWARD or reward_adapts) and (name != CRITIC or settings.critic == "separate"):
                trunk.add(name, settings.lora, "ppo.lora")
    with FAKE:
        policy, reference, reward, start = (_fast(_faked(model)) for model in (policy, *others))
        one = torch.zeros(1, 1, dtype=torch.long)
        width = policy.base_model(input_ids=one, use_cache=False).last_hidden_state.shape[-1]
        own = None if settings.critic == "shared" else start.base_model if trunk is None else trunk.trunk(CRITIC)
        critic = Critic(width, own, CRITIC if trunk is not None and own is not None else None)
        if trunk is None:
            for frozen in (reference.requires_grad_(False), reward):
                store(frozen, settings.frozen_dtype)
        else:
            policy, reference = trunk.policy(POLICY), trunk.policy(None)
    if trunk is not None and reward_adapts:
        reward = trunk.reward_model(REWARD, torch.empty(1, width, device="meta"))
    actors = Actors(policy, critic, reference, reward_of_model(reward), 0, 0, trunk)
    if settings.gradient_checkpointing:
        actors.recompute()
    return actors


def _faked(model: PreTrainedModel) -> PreTrainedModel:
    """Give a model fake tensors on the CPU in place of its weights. Weights that are shared stay shared."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        other = torch.empty(tensor.shape, dtype=tensor.dtype)
                        is_weight = isinstance(tensor, nn.Parameter)
                        made[id(tensor)] = nn.Parameter(other, tensor.requires_grad) if is_weight else other
                    table[name] = made[id(tensor)]
    return model


def _fast(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model as `made_fast` does, without its comparison of numbers."""
    fuse(model)
    if may_pack(model):
        model.set_attn_implementation(BY_ROWS)
    return model.eval()


def rows_of(model: PreTrainedModel, count: int, lengths: Lengths) -> Rows:
    """Return some rows with prompts of the mean length and responses of full length."""
    responses = count * lengths.response
    longest = lengths.longest + lengths.response
    tokens = torch.zeros(responses, dtype=torch.long)
    if not packs(model):
        ids = torch.zeros(count, longest, dtype=torch.long)
        mask = torch.ones_like(ids)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": ids, "use_cache": False}
        return Rows(inputs, torch.arange(lengths.response), tokens)
    real = round(count * (lengths.mean + lengths.response))
    slots = torch.zeros(real, dtype=torch.long) if real < count * longest else None
    ids = torch.zeros(1, real, dtype=torch.long)
    inputs = {"input_ids": ids, "position_ids": ids, "groups": [Group(slots, (count, longest), real)], "use_cache": False}
    return Rows(inputs, torch.zeros(responses, dtype=torch.long), tokens)


def _logits(model: PreTrainedModel, rows: Rows) -> Tensor:
    logits = model(**rows.inputs, logits_to_keep=rows.kept).logits.flatten(0, 1)
    return logits if packs(model) else logits[torch.arange(len(rows.tokens))]


def _known(actors: Actors) -> list[Tensor]:
    modules: list[Any] = [actors.policy, actors.reference, actors.reward.model, actors.critic]
    return [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]


@torch.no_grad()
def scoring(actors: Actors, settings: PPOSettings, count: int, lengths: Lengths) -> int:
    """Return the most bytes while `assess` scores a micro-batch of `count` rows, beyond the weights."""
    rows = rows_of(actors.policy, count, lengths)
    with Live(_known(actors)) as live, precision(settings.dtype, torch.device("cpu")):
        ChosenLogProbs.apply(_logits(actors.policy, rows), rows.tokens, settings.temperature, True)
        ChosenLogProbs.apply(_logits(actors.reference, rows), rows.tokens, settings.temperature, False)
        trunk: Any = actors.reward.model.base_model if actors.reward.model is not None else actors.policy.base_model
        trunk(**rows.inputs)
    return live.peak


@torch.no_grad()
def exact_kl(actors: Actors, settings: PPOSettings, count: int, lengths: Lengths) -> int:
    """Return the most bytes while the validation compares two models on `count` rows, beyond the weights."""
    rows = rows_of(actors.policy, count, lengths)
    with Live(_known(actors)) as live, precision(settings.dtype, torch.device("cpu")):
        kl_of_logits(_logits(actors.policy, rows), _logits(actors.reference, rows), settings.temperature)
    return live.peak


@torch.no_grad()
def rollout(actors: Actors, settings: PPOSettings, count: int, lengths: Lengths) -> int:
    """Return the most bytes while `count` responses are sampled: the cache, the first pass, and a pass for the last token."""
    ids = torch.zeros(count, lengths.longest, dtype=torch.long)
    with Live(_known(actors)) as live, precision(settings.dtype, torch.device("cpu")):
        cache = cache_of(actors.policy, lengths.longest + lengths.room)
        noise = torch.zeros(count)
        for given in (ids, ids[:, :1]):
            probabilities = (step(actors.policy, given, None, given, cache).float() / settings.temperature).softmax(dim=-1)
            draw(probabilities, noise, checked=False)
            for layer in cache.layers:
                if isinstance(layer, RoomyLayer):
                    layer.length = layer.room - 1
    return live.peak


def training(actors: Actors, settings: PPOSettings, count: int, is_last: bool, lengths: Lengths) -> int:
    """Return the most bytes while gradients are computed, with the gradients and beyond the weights.

    Args:
        actors: without gradients.
        settings: the section `ppo`.
        count: rows of a micro-batch.
        is_last: whether a minibatch has one micro-batch only. A second one adds to gradients that are there.
        lengths: of the sequences.
    """
    rows = rows_of(actors.policy, count, lengths)
    device, times = torch.device("cpu"), 1 if is_last else 2
    with Live(_known(actors)) as live:
        for _ in range(times):
            with precision(settings.dtype, device):
                logits = _logits(actors.policy, rows)
                chosen, _ = ChosenLogProbs.apply(logits, rows.tokens, settings.temperature, False)
            del logits
            chosen.sum().backward()
            del chosen
        for _ in range(times):
            with precision(settings.dtype, device):
                if actors.critic.trunk is None:
                    states = torch.empty(len(rows.tokens), actors.critic.head.in_features)
                else:
                    states = actors.critic.trunk(**rows.inputs).last_hidden_state.flatten(0, 1)[: len(rows.tokens)].clone()
                values = actors.critic.value(states)
            del states
            values.sum().backward()
            del values
    return live.peak
