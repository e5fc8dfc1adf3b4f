"""Answers of a model to prompts, for `sample` and `compare`.

The random numbers of an answer depend on (seed, prompt, sample) and on nothing else. So a prompt gets the same answer in any
order and in any batch, from the stage and from the command line.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..engine.errors import StageError
from ..engine.messages import shown
from ..engine.progress import progress_bar
from ..engine.ranks import rank, size, steps_begin, working
from ..models.forward import room_of
from ..models.sharing import of_each_rank
from ..models.tokens import decode_response, encode
from .rollout import respond, uniforms


class Answer(NamedTuple):
    """A response to a prompt.

    Attributes:
        prompt: the prompt.
        sample: the number of this answer among several to the same prompt, from 0.
        response: the text without special tokens.
        tokens: the token ids, with EOS.
        finished: whether EOS came before the limit.
    """

    prompt: str
    sample: int
    response: str
    tokens: list[int]
    finished: bool


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seed: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    samples: int = 1,
    title: str | None = None,
) -> list[Answer]:
    """Let a model answer prompts.

    Args:
        model, tokenizer: the model.
        prompts: a repeated prompt gets the same answers again. [N]
        seed: of the random numbers.
        max_new_tokens: the longest response, EOS included.
        temperature, top_p: as in `respond`.
        batch_size: answers at a time, of all ranks together. It does not change the answers.
        samples: answers to each prompt, S. A larger number leaves the first answers as they are.
        title: the name of a progress bar. None shows no bar.

    Returns:
        The answers in the order of the prompts, those to one prompt together. [N x S]

    Raises:
        StageError: a prompt is empty, or leaves no room for `max_new_tokens`.
    """
    encoded = _encode_all(model, tokenizer, prompts, max_new_tokens)
    answers: dict[tuple[int, int], Answer] = {}
    by_length = sorted(range(len(prompts)), key=lambda row: len(encoded[row]))  # little padding
    every = [(row, sample) for row in by_length for sample in range(samples)]
    wanted = every[rank() :: size()]  # each rank has long and short prompts
    at_once = -(-batch_size // size())
    steps_begin()
    with progress_bar(total=len(wanted), desc=title, unit=" answers", shown=bool(title)) as progress:
        for start in range(0, len(wanted), at_once):
            part = wanted[start : start + at_once]
            noise = torch.stack([uniforms(max_new_tokens, seed, _number(prompts[row]), sample) for row, sample in part])
            batch = respond(
                model,
                [encoded[row] for row, _ in part],
                noise,
                tokenizer.eos_token_id,
                tokenizer.pad_token_id,
                temperature,
                top_p,
            )
            for (row, sample), tokens, finished in zip(part, batch.tokens(), batch.finished.tolist(), strict=True):
                response = decode_response(tokenizer, encoded[row], tokens)
                answers[row, sample] = Answer(prompts[row], sample, response, tokens, finished)
            progress.update(len(part))
            working()
    for others in of_each_rank(answers):
        answers |= others
    return [answers[key] for key in sorted(answers)]


def _encode_all(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> list[list[int]]:
    """Return the token ids of each prompt. Refuse a prompt that is empty or leaves no room for a response."""
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    room = room_of(model)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not (prompt and ids):
            raise StageError("a prompt is empty; give at least one word")
        if len(ids) + max_new_tokens > room:
            raise StageError(
                f"the prompt {shown(prompt)} has {len(ids)} tokens and max_new_tokens is {max_new_tokens}, together "
                f"more than the model's {room} positions; shorten the prompt, or lower max_new_tokens"
            )
    return encoded


def _number(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
