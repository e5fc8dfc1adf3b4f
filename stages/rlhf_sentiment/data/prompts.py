"""Read files of prompts: one prompt a line, or JSON lines, or transcripts of HH-RLHF."""

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
    r"""Return the prompts of a file, each once, in their order.

    A `.txt` file has one prompt a line. Blank lines are left out. A `.jsonl` file has objects with `prompt`, or with `chosen`,
    a transcript as in HH-RLHF (2204.05862). The prompt of a transcript ends with the last "\n\nAssistant:".

    Raises:
        StageError: the file is missing, has another ending, or has no prompt; or a row has no prompt (with its number).
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
        raise StageError(f"{path}: should be a .txt file, with one prompt a line, or a .jsonl file")
    if not prompts:
        raise StageError(f"{path}: contains no prompt")
    return list(dict.fromkeys(prompts))


def _prompt_of(row: dict[str, object], where: str) -> str:
    prompt, transcript = row.get("prompt"), row.get("chosen")
    if prompt is None and isinstance(transcript, str):
        before, turn, _ = transcript.rpartition(TURN)
        prompt = before + turn
    if not isinstance(prompt, str) or not prompt.strip():
        raise StageError(f"{where}: should have `prompt`, a text, or `chosen`, a transcript with {shown(TURN.strip())}")
    if not is_utf8(prompt):
        raise StageError(f"{where}: {shown(prompt)} is not UTF-8")
    return prompt


def texts(given: object, name: str) -> list[str]:
    """Return `given` as a list of texts, if a tokenizer accepts them.

    Args:
        given: any value.
        name: the name of the argument, for messages.

    Raises:
        StageError: `given` is not a list, or one of its items is not a text or not UTF-8.
    """
    found = [] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not found or not all(isinstance(text, str) and is_utf8(text) for text in found):
        raise StageError(f"{name} should be a list of texts (got {shown(given)})")
    return found


def at_least_one(samples: object) -> int:
    """Return `samples`, if it is a whole number from 1.

    Raises:
        StageError: `samples` is not such a number.
    """
    if not isinstance(samples, Integral) or isinstance(samples, bool) or samples < 1:
        raise StageError(f"samples should be a whole number of at least 1 (got {shown(samples)})")
    return int(samples)


def is_utf8(prompt: str) -> bool:
    """Return whether a text has no lone surrogate. No tokenizer accepts lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in prompt)
