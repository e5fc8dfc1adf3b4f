"""Read and check the answers of the contestants."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from ..engine.errors import StageError
from ..engine.ranks import working
from ..engine.records import Row, read_rows
from ..models.exchange import own_share
from ..models.tokens import encode_prompt
from ..sampling.rollout import Responses, batch_of
from .contestants import CONTESTANTS


class Samples(NamedTuple):
    """The answers and the rollouts of the contestants.

    Attributes:
        prompts: the prompts, which are the same for every contestant. [N]
        each: answers to each prompt, S.
        answers: the answers of each contestant, in the order of the prompts. name -> [N x S]
        rollouts: the untruncated answers at PPO's temperature, of each contestant that has them. name -> [N]
    """

    prompts: list[str]
    each: int
    answers: dict[str, list[Row]]
    rollouts: dict[str, list[Row]]


def read_samples(each: int) -> Samples:
    """Read `each` answers of every contestant to each prompt, and the rollouts.

    Raises:
        StageError: a file is damaged, or the contestants did not answer the same prompts in the same order.
    """
    answers = {name: _read(one.answers) for name, one in CONTESTANTS.items()}
    rollouts = {name: _read(one.rollouts) for name, one in CONTESTANTS.items() if one.rollouts}
    prompts = [row["prompt"] for row in next(iter(answers.values()))[::each]]
    wanted = [(prompt, sample) for prompt in prompts for sample in range(each)]
    if any([(row["prompt"], row["sample"]) for row in rows] != wanted for rows in answers.values()) or any(
        [row["prompt"] for row in rows] != prompts for rows in rollouts.values()
    ):
        raise StageError("data/samples: the models answered different prompts and cannot be compared; run `dvc repro`")
    return Samples(prompts, each, answers, rollouts)


def _read(path: str) -> list[Row]:
    rows = read_rows(path, {"prompt": str, "sample": int, "response": str, "tokens": list, "finished": bool})
    for number, row in enumerate(rows, start=1):
        if not row["tokens"]:
            raise StageError(f"{path}, line {number}: no tokens; a response has at least its EOS")
    return rows


def batches(
    rows: list[Row], tokenizer: PreTrainedTokenizerBase, device: torch.device, size: int = 64
) -> Iterator[tuple[list[int], Responses]]:
    """Yield the answers as tensors, `size` at a time, with their places in `rows`.

    Answers of similar lengths share a batch, so that batches have little padding. Each of several ranks gets its share of
    the batches.
    """
    prompts = [encode_prompt(tokenizer, row, f"data/samples, row {number}") for number, row in enumerate(rows, start=1)]
    order = sorted(range(len(rows)), key=lambda place: (len(rows[place]["tokens"]), len(prompts[place])))
    for start in own_share(range(0, len(rows), size)):
        part = order[start : start + size]
        working()
        responses = [rows[place]["tokens"] for place in part]
        yield part, batch_of([prompts[place] for place in part], responses, tokenizer.pad_token_id, device)
