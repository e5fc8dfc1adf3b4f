"""Prompts that people bring in a file: one a line, or JSON lines, or the transcripts of HH-RLHF."""

from collections.abc import Iterable
from numbers import Integral
from os.path import isfile
from pathlib import Path

from ..engine.errors import StageError
from ..engine.inputs import whence
from ..engine.messages import shown
from ..engine.records import read_rows

TURN = "\n\nAssistant:"


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a file, each once, in their order.

    `.txt` has one a line; blank lines are left out. `.jsonl` has objects with `prompt`, or with `chosen`, a transcript
    as in HH-RLHF, whose prompt is all up to the last "\\n\\nAssistant:" (2204.05862).

    Raises:
        StageError: no such file, another kind of file, no prompt in it, or a row that has none (with its number).
    """
    path = Path(path)
    if not isfile(path):
        raise StageError(f"{path}: no such file of prompts{whence(path)}")
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise StageError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
        prompts = [line.strip() for line in lines if line.strip()]
    elif path.suffix == ".jsonl":
        prompts = [_prompt_of(row, f"{path}, line {number}") for number, row in enumerate(read_rows(path, {}), start=1)]
    else:
        raise StageError(f"{path}: prompts come as .txt, one a line, or .jsonl")
    if not prompts:
        raise StageError(f"{path}: holds no prompt")
    return list(dict.fromkeys(prompts))


def _prompt_of(row: dict[str, object], where: str) -> str:
    prompt, transcript = row.get("prompt"), row.get("chosen")
    if prompt is None and isinstance(transcript, str):
        before, turn, _ = transcript.rpartition(TURN)
        prompt = before + turn
    if not isinstance(prompt, str) or not prompt.strip():
        raise StageError(f"{where}: needs `prompt`, a text, or `chosen`, a transcript with {shown(TURN.strip())}")
    if not is_utf8(prompt):
        raise StageError(f"{where}: {shown(prompt)} is not UTF-8")
    return prompt


def texts(given: object, name: str) -> list[str]:
    """`given`, where it is a list of texts that a tokenizer takes.

    Raises:
        StageError: it is one text, or something else, or one of it is no text or not UTF-8.
    """
    found = [] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not found or not all(isinstance(text, str) and is_utf8(text) for text in found):
        raise StageError(f"{name} should be a list of texts (got {shown(given)})")
    return found


def at_least_one(samples: object) -> int:
    """`samples`, where it is a number of answers.

    Raises:
        StageError: it is none.
    """
    if not isinstance(samples, Integral) or isinstance(samples, bool) or samples < 1:
        raise StageError(f"samples should be a whole number from 1 on (got {shown(samples)})")
    return int(samples)


def is_utf8(prompt: str) -> bool:
    """Whether a text has no lone surrogate, which no tokenizer takes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in prompt)
