"""What a model writes after a prompt, as `sample` and `compare` ask for it.

The random numbers of an answer come from (seed, prompt, sample): the same prompt gets the same answer in any order, in
any company, from the stage and from the command line.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..engine.errors import StageError
from ..engine.messages import shown
from ..engine.progress import progress_bar
from ..models.forward import room_of
from ..models.tokens import decode_response, encode
from .rollout import respond, uniforms


class Answer(NamedTuple):
    """A response: its text without special tokens, its token ids with EOS, and whether EOS came before the limit.

    sample: the number of this answer among several to the same prompt.
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
    """Answers to each prompt, in the order of the prompts, those to one prompt together.

    Args:
        prompts: each once, or it gets the same answers again.
        samples: answers to each prompt; more of them leave the first as they are.
        title: shows a progress bar of that name.

    Raises:
        StageError: an empty prompt, or one that leaves no room for `max_new_tokens`.
    """
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    room = room_of(model)
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not (prompt and ids):
            raise StageError("an empty prompt has no next word; give at least one")
        if len(ids) + max_new_tokens > room:
            raise StageError(
                f"the prompt {shown(prompt)} has {len(ids)} tokens: with a response of max_new_tokens, {max_new_tokens}, "
                f"more than the model's {room} positions; shorten one of them"
            )
    answers: dict[tuple[int, int], Answer] = {}
    by_length = sorted(range(len(prompts)), key=lambda row: len(encoded[row]))  # little padding
    wanted = [(row, sample) for row in by_length for sample in range(samples)]
    with progress_bar(total=len(wanted), desc=title, unit=" answers", shown=bool(title)) as progress:
        for start in range(0, len(wanted), batch_size):
            part = wanted[start : start + batch_size]
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
    return [answers[key] for key in sorted(answers)]


def _number(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
