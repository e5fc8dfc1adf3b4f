"""Sample responses from a model, and score their tokens under a model.

A batch is one tensor of token ids. Prompts are padded on the left, and responses on the right. Masks are made from lengths,
never from pad ids, because a model may sample the pad token, and some tokenizers use their EOS as pad.

Each token needs one uniform random number. All of them are drawn in advance from coordinates such as (seed, prompt, sample).
What a row samples therefore depends neither on other rows nor on how rows are batched.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ..engine.errors import StageError
from ..models.cache import cache_of
from ..models.forward import before_responses, logits, step
from ..models.packing import positions


class Responses(NamedTuple):
    """B prompts of at most P tokens, each with a response of at most T tokens.

    | field          | shape      | content                                                          |
    |----------------|------------|------------------------------------------------------------------|
    | sequences      | (B, P + T) | token ids: padding, prompt, response, padding                    |
    | attention_mask | (B, P + T) | 1 on prompt and response tokens                                  |
    | response_mask  | (B, T)     | 1 on response tokens, including EOS                              |
    | finished       | (B,)       | True where the response ends with EOS (else it stopped at T)     |
    """

    sequences: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    finished: Tensor

    @property
    def length(self) -> int:
        """T, the number of tokens of the longest response."""
        return self.response_mask.shape[1]

    @property
    def responses(self) -> Tensor:
        """The token ids of the responses, with padding, (B, T)."""
        return self.sequences[:, -self.length :]

    def prompts(self) -> list[list[int]]:
        """Return the token ids of each prompt, without padding, [B]."""
        width = self.sequences.shape[1] - self.length
        lengths = self.attention_mask[:, :width].sum(dim=1).tolist()
        return [row[width - length :] for row, length in zip(self.sequences[:, :width].tolist(), lengths, strict=True)]

    def tokens(self) -> list[list[int]]:
        """Return the token ids of each response, with EOS and without padding, [B]."""
        lengths = self.response_mask.sum(dim=1).tolist()
        return [row[:length] for row, length in zip(self.responses.tolist(), lengths, strict=True)]

    def spread(self, x: Tensor) -> Tensor:
        """Return what belongs to the M real response tokens in its place, with 0 on padding: (M, ...) -> (B, T, ...)."""
        return x.new_zeros(*self.response_mask.shape, *x.shape[1:]).index_put((self.response_mask.bool(),), x)

    def take(self, rows: Tensor) -> "Responses":
        """Return some rows of the batch, without the columns that hold only padding. `rows` is an index of rows."""
        sequences, attention, mask, finished = (field[rows] for field in self)
        prompt_width = attention.shape[1] - mask.shape[1]
        first = int(attention.argmax(dim=1).min())  # the longest prompt starts here
        last = prompt_width + int(mask.sum(dim=1).max())
        return Responses(sequences[:, first:last], attention[:, first:last], mask[:, : last - prompt_width], finished)


def uniforms(length: int, *coordinates: int) -> Tensor:
    """Return numbers from [0, 1) that depend only on the coordinates (numpy's SeedSequence), (length,)."""
    return torch.from_numpy(np.random.default_rng(coordinates).random(length, dtype=np.float32))


def pad_prompts(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return prompts padded on the left, and their mask: [B] -> (B, P), (B, P)."""
    longest = max(len(prompt) for prompt in prompts)
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def batch_of(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int, device: torch.device | str
) -> Responses:
    """Return prompts and given responses, as token ids, as one batch.

    `finished` is False everywhere, because it is not known for a response that was not sampled here.
    """
    ids, mask = pad_prompts(prompts, pad)
    longest = max(len(response) for response in responses)
    response_ids = torch.tensor([[*response, *[pad] * (longest - len(response))] for response in responses])
    response_mask = torch.tensor([[1] * len(response) + [0] * (longest - len(response)) for response in responses])
    return Responses(
        torch.cat([ids, response_ids], dim=1).to(device),
        torch.cat([mask, response_mask], dim=1).to(device),
        response_mask.to(device),
        torch.zeros(len(prompts), dtype=torch.bool, device=device),
    )


@torch.no_grad()
def respond(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    noise: Tensor,
    eos: int,
    pad: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Responses:
    """Sample a response to each prompt, up to its EOS or T tokens.

    A row that has its EOS leaves the batch and the cache at once.

    Args:
        model: a causal language model.
        prompts: token ids without padding. No prompt is empty. [B]
        noise: one uniform random number from [0, 1) for each token. (B, T)
        eos, pad: token ids.
        temperature: divides the logits. With top_p = 1 the result is the distribution that PPO assumes.
        top_p: keeps the smallest set of tokens with at least this probability (Holtzman et al. 2020, 1904.09751).

    Raises:
        StageError: a probability is not finite.
    """
    device, longest = model.device, noise.shape[1]
    warpers = LogitsProcessorList()
    if temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(temperature))
    if top_p < 1.0:
        warpers.append(TopPLogitsWarper(top_p))

    ids, mask = (part.to(device) for part in pad_prompts(prompts, pad))  # (B, P)
    width, noise = ids.shape[1], noise.to(device)
    responses = torch.full((len(prompts), longest), pad, device=device)
    lengths = torch.full((len(prompts),), longest, device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)

    # The n rows that still write: their numbers in the batch, the mask of all their tokens, and their next input.
    rows = torch.arange(len(prompts), device=device)
    whole = None if mask.all() else functional.pad(mask, (0, longest), value=1)  # (n, P + T)
    step_ids, places = ids, positions(mask)
    cache = cache_of(model, width + longest)
    for t in range(longest):
        seen = None if whole is None else whole[:, : width + t]
        logits = step(model, step_ids, seen, places, cache)  # (n, V)
        tokens = draw(warpers(step_ids, logits.float()).softmax(dim=-1), noise[rows, t])
        responses[rows, t] = tokens
        places = places[:, -1:] + 1
        if (ended := tokens == eos).any():
            lengths[rows[ended]], finished[rows[ended]] = t + 1, True
            order = _without(ended)
            if not len(order):
                break
            cache.batch_select_indices(order)
            rows, tokens, places = rows[order], tokens[order], places[order]
            whole = None if whole is None else whole[order]
        step_ids = tokens[:, None]
    responses = responses[:, : lengths.max()]
    response_mask = (torch.arange(responses.shape[1], device=device) < lengths[:, None]).long()
    return Responses(torch.cat([ids, responses], dim=1), torch.cat([mask, response_mask], dim=1), response_mask, finished)


def _without(ended: Tensor) -> Tensor:
    """Return the order of the rows that go on: the last rows take the places of those that ended. (n,) -> (m,)."""
    order = (~ended).nonzero().squeeze(1)
    stay = order[order < len(order)]
    places = torch.arange(len(order), device=order.device)
    places[ended[: len(order)]] = order[len(stay) :]
    return places


def draw(probabilities: Tensor, noise: Tensor, checked: bool = True) -> Tensor:
    """Return the token at which the cumulative probability exceeds the noise: (B, V), (B,) -> (B,).

    A token of probability 0 is never drawn. Noise below 1 in float32 is at most 1 - 2^-24, so that its product with the
    total stays below the total, even after rounding.

    Args:
        probabilities: of each row, not necessarily with the sum 1. (B, V)
        noise: from [0, 1). (B,)
        checked: whether to look for probabilities that are not finite.

    Raises:
        StageError: a probability is not finite.
    """
    cumulative = probabilities.cumsum(dim=-1)
    if checked and not torch.isfinite(cumulative[:, -1]).all():
        raise StageError("the model's probabilities are not finite; train it at a lower learning rate, or check its weights")
    return torch.searchsorted(cumulative, noise[:, None] * cumulative[:, -1:], right=True).squeeze(1)


def _logits(model: PreTrainedModel, batch: Responses) -> Tensor:
    """Return the logits before each of the M response tokens, row by row, (M, V)."""
    return logits(model, batch.sequences, batch.attention_mask, before_responses(batch.attention_mask, batch.length))


class ChosenLogProbs(torch.autograd.Function):
    """Compute log softmax(logits / temperature) at the chosen tokens, and the entropy: (N, V), (N,) -> (N,), (N,).

    The function makes no second tensor of the size of the logits. `log_softmax` makes up to three: one that it keeps for its
    gradient, the gradient, and a float32 copy of half-precision logits. Here a few rows at a time become float32. The
    gradient, (one_hot(token) - softmax) / temperature, overwrites the logits. Backward can therefore run only once, and
    no other function may need the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, temperature: float, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities and the entropies."""
        chosen, entropy, norms = (logits.new_zeros(len(tokens), dtype=torch.float32) for _ in range(3))
        for rows in few(logits):
            scaled = logits[rows].float() / temperature
            norms[rows] = scaled.logsumexp(dim=-1)
            everything = scaled.sub_(norms[rows, None])
            chosen[rows] = everything.gather(-1, tokens[rows, None]).squeeze(-1)
            if with_entropy:
                entropy[rows] = -(everything.exp() * everything).sum(dim=-1)
        ctx.save_for_backward(logits, tokens, norms)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the logits, in their memory."""
        logits, tokens, norms = ctx.saved_tensors
        weight = grads[0] / ctx.temperature  # (N,)
        for rows in few(logits):
            probabilities = (logits[rows].float() / ctx.temperature).sub_(norms[rows, None]).exp_()
            part = probabilities.mul_(-weight[rows, None])
            logits[rows] = part.scatter_add_(-1, tokens[rows, None], weight[rows, None])
        return logits, None, None, None


def few(logits: Tensor) -> Iterator[slice]:
    """Return slices of rows with about a million logits each, which fit into a CPU's cache."""
    step = max(1, 2**20 // logits.shape[-1])
    return (slice(start, start + step) for start in range(0, len(logits), step))


class Scored(NamedTuple):
    """The scores of each response token under a model, 0 on padding.

    Attributes:
        log_probs: log-probability of the token, in nats, with gradient. (B, T)
        entropy: of the distribution at this token, in nats. 0 where it was not asked for. (B, T)
    """

    log_probs: Tensor
    entropy: Tensor


def score_tokens(model: PreTrainedModel, batch: Responses, temperature: float, with_entropy: bool = False) -> Scored:
    """Return log-probability and entropy of each response token at a temperature, in float32."""
    tokens = batch.responses[batch.response_mask.bool()]
    chosen, entropy = ChosenLogProbs.apply(_logits(model, batch), tokens, temperature, with_entropy)
    return Scored(batch.spread(chosen), batch.spread(entropy))


@torch.no_grad()
def exact_kl(model: PreTrainedModel, reference: PreTrainedModel, batch: Responses, temperature: float) -> Tensor:
    """Return KL(model || reference) of each response, in nats, (B,).

    The KL of each token is the exact sum over the vocabulary. Over responses that `model` sampled, the mean of the results
    estimates the KL between the two models' distributions of responses. The mean log-ratio estimates the same KL with more
    noise.
    """
    own, other = (_logits(each, batch) for each in (model, reference))  # (M, V)
    return batch.spread(kl_of_logits(own, other, temperature)).sum(dim=1)


def kl_of_logits(own: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return the KL between the distributions that two tensors of logits give, in nats: (M, V), (M, V) -> (M,).

    A few rows at a time become log-probabilities, so that no further tensor of the size of the logits is needed.
    """
    kl = own.new_empty(len(own), dtype=torch.float32)
    for rows in few(own):
        p, q = ((x[rows].float() / temperature).log_softmax(dim=-1) for x in (own, other))
        kl[rows] = (p.exp() * (p - q)).sum(dim=-1)
    return kl
