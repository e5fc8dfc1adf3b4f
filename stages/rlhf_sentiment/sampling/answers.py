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
from ..engine.records import Row
from ..models.exchange import of_each_rank
from ..models.forward import room_of
from ..models.tokens import decode_response, encode_prompt, has_template
from .rollout import respond, uniforms


class Answer(NamedTuple):
    """A response to a prompt.

    Attributes:
        prompt: the prompt, as people read it.
        sample: the number of this answer among several to the same prompt, from 0.
        response: the text without special tokens.
        tokens: the token ids, with EOS.
        finished: whether EOS came before the limit.
        messages: those of the prompt, if it has any.
    """

    prompt: str
    sample: int
    response: str
    tokens: list[int]
    finished: bool
    messages: list[dict[str, str]] | None

    def row(self) -> Row:
        """Return the answer as a row of data/samples. A row has `messages` only if the prompt has any."""
        row = self._asdict()
        return row if self.messages else {name: value for name, value in row.items() if name != "messages"}


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Row],
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
        prompts: rows with `prompt`, and `messages` or not. A repeated prompt gets the same answers again. [N]
        seed: of the random numbers.
        max_new_tokens: the longest response, EOS included.
        temperature, top_p: as in `respond`.
        batch_size: answers at a time, of all ranks together. It does not change the answers.
        samples: answers to each prompt, S. A larger number leaves the first answers as they are.
        title: the name of a progress bar. None shows no bar.

    Returns:
        The answers in the order of the prompts, those to one prompt together. [N x S]

    Raises:
        StageError: a prompt is empty, or leaves no room for `max_new_tokens`; the chat template of the tokenizer refuses the
            messages of one.
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
                prompt, messages = prompts[row]["prompt"], prompts[row].get("messages")
                response = _response(tokenizer, prompts[row], encoded[row], tokens)
                answers[row, sample] = Answer(prompt, sample, response, tokens, finished, messages)
            progress.update(len(part))
            working()
    for others in of_each_rank(answers):
        answers |= others
    return [answers[key] for key in sorted(answers)]


def _encode_all(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row], max_new_tokens: int
) -> list[list[int]]:
    """Return the token ids of each prompt. Refuse a prompt that is empty or leaves no room for a response."""
    encoded = [encode_prompt(tokenizer, row, f"prompt {number}") for number, row in enumerate(prompts, start=1)]
    room = room_of(model)
    for row, ids in zip(prompts, encoded, strict=True):
        if not (row["prompt"] and ids):
            raise StageError("a prompt is empty; give at least one word")
        if len(ids) + max_new_tokens > room:
            raise StageError(
                f"the prompt {shown(row['prompt'])} has {len(ids)} tokens and max_new_tokens is {max_new_tokens}, together "
                f"more than the model's {room} positions; shorten the prompt, or lower max_new_tokens"
            )
    return encoded


def _response(tokenizer: PreTrainedTokenizerBase, asked: Row, prompt: list[int], tokens: list[int]) -> str:
    """Return the text of a response, which continues the text of the prompt.

    After a chat template, a response begins without a space. It gets one here, as the responses of the prepared data have.
    """
    response = decode_response(tokenizer, prompt, tokens)
    return f" {response.lstrip()}" if response and has_template(tokenizer, asked) else response


def _number(row: Row) -> int:
    return int.from_bytes(hashlib.sha256(row["prompt"].encode()).digest()[:8], "big")
