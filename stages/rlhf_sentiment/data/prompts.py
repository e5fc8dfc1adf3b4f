"""Read files of prompts: one prompt a line, or JSON lines, or transcripts of HH-RLHF, or messages."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from os.path import isfile
from pathlib import Path

from ..engine.errors import StageError
from ..engine.inputs import whence
from ..engine.messages import shown
from ..engine.records import Row, read_rows
from .chat import TURN, beside, messages_of, speaker, transcript
from .faults import Fault

Prompt = str | list[dict[str, str]]  # as people give it: a text, or messages


def read_prompts(path: str | Path) -> list[Row]:
    r"""Return the prompts of a file, each once, in their order: rows with `prompt`, and `messages` if the file has them.

    A `.txt` file has one prompt a line. Blank lines are left out. A `.jsonl` file has objects with one of these:

    - `prompt`, a text, or messages whose last one is not from the assistant;
    - `messages`, of the same kind;
    - `chosen`, a transcript as in HH-RLHF (2204.05862). Its prompt ends with the last "\n\nAssistant:".

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
        prompts = [Row(prompt=line.strip()) for line in lines if line.strip()]
    elif path.suffix == ".jsonl":
        prompts = [_prompt_of(row, f"{path}, line {number}") for number, row in enumerate(read_rows(path, {}), start=1)]
    else:
        raise StageError(f"{path}: should be a .txt file, with one prompt a line, or a .jsonl file")
    if not prompts:
        raise StageError(f"{path}: contains no prompt")
    return each_once(prompts)


def each_once(prompts: Iterable[Row]) -> list[Row]:
    """Return rows with `prompt`, the first of each prompt."""
    found: dict[str, Row] = {}
    for row in prompts:
        found.setdefault(row["prompt"], row)
    return list(found.values())


def as_prepared(prompts: Sequence[Row], prepared: Sequence[Row]) -> list[Row]:
    """Return prompts of people in the form of the prepared prompts, on which the models were trained.

    If the prepared prompts have messages, a prompt that is a text becomes one message of the user.

    Args:
        prompts: rows with `prompt`, and `messages` or not.
        prepared: the rows of data/prepared/prompts.jsonl.
    """
    if not any("messages" in row for row in prepared):
        return list(prompts)
    return [{"messages": [{"role": "user", "content": row["prompt"]}]} | row for row in prompts]


def _prompt_of(row: Row, where: str) -> Row:
    prompt, talk = row.get("prompt"), row.get("chosen")
    messages = prompt if isinstance(prompt, list) else row.get("messages") if prompt is None else None
    if prompt is None and isinstance(talk, str):
        before, turn, _ = talk.rpartition(TURN)
        prompt = before + turn
    if isinstance(messages, list) and messages:
        try:
            if speaker(messages[-1]) == "Assistant":
                raise Fault("the last message is from the assistant; leave it out")
            prompt = transcript(messages) + TURN
        except Fault as fault:
            raise StageError(f"{where}: {fault}") from None
    if not isinstance(prompt, str) or not prompt.strip():
        known = f"`prompt`, a text or messages, or `messages`, or `chosen`, a transcript with {shown(TURN.strip())}"
        raise StageError(f"{where}: should have {known}")
    if not is_utf8(prompt):
        raise StageError(f"{where}: {shown(prompt)} is not UTF-8")
    return {"prompt": prompt} | beside(messages_of(prompt, row))


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


def rows_of(given: object, name: str) -> list[Row]:
    """Return `given`, a list of prompts, as rows with `prompt`, and `messages` for a prompt that is a list of messages.

    Args:
        given: any value.
        name: the name of the argument, for messages.

    Raises:
        StageError: `given` is not a list, or one of its items is neither a text nor messages, or not UTF-8.
    """
    if not isinstance(given, Sequence) or not any(isinstance(one, list) for one in given):
        return [Row(prompt=text) for text in texts(given, name)]
    return [_prompt_of({"prompt": one}, f"{name}, number {number}") for number, one in enumerate(given, start=1)]


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
