"""Estimate the memory of a run of PPO from shapes alone: no weights are loaded, and nothing is computed.

The weights, gradients and states of the optimizer are counted. What the passes need on top comes from passes.py. The run needs
the most of all moments:

    total = libraries + weights + heap * max over moments of (optimizer + gradients + experience + what the pass needs)

Responses are taken to have their full length, `ppo.max_new_tokens`. A run with shorter responses needs less.
"""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig

from ..models.adapters import adapter_layers
from ..ppo.actors import Actors
from ..ppo.loop import FIRST
from ..settings.ppo import PPOSettings
from .passes import FAKE, Lengths, empty_actors, exact_kl, rollout, scoring, training

FLOAT, LONG = 4, 8  # bytes of a float32 and of an int64
# Measured: the resident memory of glibc's heap, relative to what is in use at its peak. A freed block is often split, so the
# next block of its size needs new memory. A GPU is measured by what is in use.
HEAP = 1.25
# The same with adapters, measured at widths 256 and 1,024 with 24 layers: 1.9 and 1.8.
HEAP_ADAPTERS = 1.8
# Measured: bytes on a CPU for the code of a model's architecture, compiled kernels, and the work areas of products.
KERNELS = 40 * 2**20


class Weights(NamedTuple):
    """Bytes of the weights. Weights that several models share count for the first of them.

    Attributes:
        policy, reference, reward, critic: bytes.
        learning: the number of weights that learn.
        adapted: bytes of the policy with its adapter added, which is made when it is saved. 0 without an adapter.
        width: of the hidden states that a critic without a trunk reads. 0 with a trunk.
    """

    policy: int
    reference: int
    reward: int
    critic: int
    learning: int
    adapted: int
    width: int

    @property
    def all(self) -> int:
        """Bytes of all models together."""
        return self.policy + self.reference + self.reward + self.critic


class Moment(NamedTuple):
    """What a run has in memory at one moment, besides libraries and weights, in bytes."""

    name: str
    optimizer: int
    gradients: int
    experience: int
    rest: int

    @property
    def all(self) -> int:
        """Bytes of all parts."""
        return self.optimizer + self.gradients + self.experience + self.rest


class Plan(NamedTuple):
    """The memory of a run, in bytes.

    Attributes:
        libraries: of the process before it loads a model. 0 on a GPU.
        weights: of the models.
        moments: those that can need the most.
        heap: what the allocator holds, relative to what is in use.
        processes: on this device.
    """

    libraries: int
    weights: Weights
    moments: list[Moment]
    heap: float
    processes: int = 1

    @property
    def largest(self) -> Moment:
        """The moment that needs the most."""
        return max(self.moments, key=lambda moment: moment.all)

    @property
    def total(self) -> int:
        """The peak of a process, in bytes."""
        return self.libraries + self.weights.all + round(self.heap * self.largest.all)


def optimizer_bytes(learning: int) -> int:
    """Return the bytes of AdamW's two averages in float32, for a number of weights."""
    return 2 * FLOAT * learning


def gradient_bytes(learning: int, ranks: int) -> int:
    """Return the bytes of float32 gradients. With several ranks, DDP has them once more, as it sends them."""
    return (2 if ranks > 1 else 1) * FLOAT * learning


def experience_bytes(rows: int, lengths: Lengths, width: int) -> int:
    """Return the bytes of `Experience` and of what it is made from.

    Sequences and masks are int64: 2 (P + T) + T. The rest is float32: nine tensors of T, and T times `width` for a critic that
    reads states.
    """
    longs = 2 * (lengths.longest + lengths.response) + lengths.response
    return rows * (LONG * longs + FLOAT * lengths.response * (9 + width))


def weights_of(actors: Actors, width: int) -> Weights:
    """Return the bytes of the weights of four models. `width` is that of a shared critic, or 0."""
    seen: set[int] = set()

    def own(module: nn.Module | None) -> int:
        new = {} if module is None else {id(weight): weight for weight in module.parameters() if id(weight) not in seen}
        seen.update(new)
        return sum(weight.numel() * weight.element_size() for weight in new.values())

    policy, reference, reward, critic = map(own, (actors.policy, actors.reference, actors.reward.model, actors.critic))
    adapted = 0
    if actors.trunk is not None:
        adapted = FLOAT * sum(layer.weight.numel() for layer in adapter_layers(actors.policy).values())
    learning = sum(weight.numel() for weight in actors.parameters())
    return Weights(policy, reference, reward, critic, learning, adapted, width)


def plan_of(
    config: PretrainedConfig,
    settings: PPOSettings,
    reward_adapts: bool,
    lengths: Lengths,
    validation: int,
    libraries: int = 0,
    heap: float = 1.0,
    ranks: int = 1,
) -> Plan:
    """Return the memory of a run.

    Args:
        config: of the language model.
        settings: the section `ppo`.
        reward_adapts: whether the reward model is an adapter on models/sft.
        lengths: of prompts and responses.
        validation: prompts of a measurement.
        libraries: bytes of the process before it loads a model.
        heap: what the allocator holds, relative to what is in use.
        ranks: processes, each of which computes its share of the rows.
    """
    with torch.random.fork_rng(devices=[]):  # new modules draw their weights, and the run draws the same numbers after a plan
        actors = empty_actors(config, settings, reward_adapts)
    weights = weights_of(actors, actors.critic.head.in_features if actors.critic.trunk is None else 0)
    minibatch = ceil(settings.batch_size // settings.minibatches / ranks)
    micro = min(settings.micro_batch_size, minibatch)
    first, every = FIRST * settings.batch_size, settings.batch_size
    with FAKE:
        sampled = {count: rollout(actors, settings, ceil(count / ranks), lengths) for count in {first, validation}}
        scored = scoring(actors, settings, micro, lengths)
        compared = exact_kl(actors, settings, min(micro, validation), lengths)
        trained = training(actors, settings, micro, micro == minibatch, lengths)
    optimizer, gradients = optimizer_bytes(weights.learning), FLOAT * weights.learning
    buckets = gradient_bytes(weights.learning, ranks) - gradients
    collected = experience_bytes(first, lengths, weights.width)
    copies = FLOAT * first * lengths.response * weights.width  # of the states, while the parts become one tensor
    moments = [
        Moment(f"rollout of the first {first} responses", 0, 0, 0, sampled[first]),
        Moment("scoring of the first responses", 0, 0, collected, max(scored, 2 * copies)),
        Moment(f"rollout of {validation} validation prompts", optimizer, 0, 0, sampled[validation]),
        Moment("exact KL of a micro-batch", optimizer, 0, experience_bytes(validation, lengths, 0), compared),
        Moment(
            f"training on a micro-batch of {micro}",
            optimizer,
            gradients + buckets,
            experience_bytes(every, lengths, weights.width),
            max(trained - gradients, 0),
        ),
        Moment("saving the policy", optimizer, 0, 0, weights.adapted),
    ]
    return Plan(libraries, weights, moments, heap, ranks)


def fitting(largest: int, total: Callable[[int], int], available: int, minibatch: int) -> int | None:
    """Return the largest size of micro-batches that fits, or None.

    The total of a size is taken to lie on the line between those of one row and of `largest`. The true curve bends upwards, as
    it is the maximum of lines. So the result is rather too small.

    Args:
        largest: the size of now, which does not fit.
        total: the bytes of a run, from the size of its micro-batches.
        available: bytes of the device.
        minibatch: which the result must divide.
    """
    one, now = total(1), total(largest)
    sizes = [size for size in range(largest - 1, 0, -1) if minibatch % size == 0]
    return next((size for size in sizes if one + (now - one) * (size - 1) / (largest - 1) <= available), None)
