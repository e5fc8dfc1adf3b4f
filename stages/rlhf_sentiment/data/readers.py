"""Read one row of each shape: from the columns of a row to a record.

Labelled and plain texts become one line. Prompts and responses keep their lines (dialogue.py). The meanings of labels, ratings
and preferences are in meanings.py. The columns of a row have our names (columns.py). `messages` of a record are those of its
prompt, if the row has messages (chat.py). shapes.py sets them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..engine.messages import shown
from ..engine.records import Row
from .chat import TURN, Message, speaker, transcript
from .dialogue import prompt_of, split, text_of
from .faults import TIE, Fault
from .meanings import Meanings, is_missing, number_of
from .text import cleaned


class Labelled(NamedTuple):
    """A labelled text, which is `prompt + response`. Label 1 is positive. `prompt` is empty if the row has none."""

    prompt: str
    response: str
    label: int
    messages: list[Message] | None = None


class Ranked(NamedTuple):
    """Responses to one prompt, and a score for each. Of two responses, the one with the higher score is preferred."""

    prompt: str
    responses: list[str]
    scores: list[float]
    messages: list[Message] | None = None


class Plain(NamedTuple):
    """A text."""

    text: str
    messages: list[Message] | None = None


Record = Labelled | Ranked | Plain


def preference(row: Row, meanings: Meanings) -> Ranked:
    """Read a chosen and a rejected response."""
    names = ["chosen", "rejected"]
    prompt, responses = split(row.get("prompt"), names, [row.get(name) for name in names], row.get("instruction"))
    refuse_equal(names, responses)
    better, worse = number_of(row.get("chosen_score")), number_of(row.get("rejected_score"))
    if better is not None and better == worse:
        raise Fault(TIE, f"chosen and rejected have the same score, {better:g}")
    if better is not None and worse is not None and better < worse:
        raise Fault(
            "rejected has a higher score than chosen", f"rejected has a higher score ({worse:g}) than chosen ({better:g})"
        )
    return Ranked(prompt, responses, [1, 0])


def votes(row: Row, meanings: Meanings) -> Ranked:
    """Read two responses, and the votes of one or several annotators. A tie counts for neither response."""
    names = ["response_a", "response_b"]
    prompt, responses = split(row.get("prompt"), names, [row.get(name) for name in names], row.get("instruction"))
    refuse_equal(names, responses)
    if "won_a" in row and "preference" not in row:
        outcomes = [number_of(row.get(name)) for name in ("won_a", "won_b", "won_tie")]
        if sorted(map(str, outcomes)) != ["0.0", "0.0", "1.0"]:
            raise Fault("not exactly one winner", f"winners are {shown(outcomes)}, but should be one 1 and two 0s")
        return Ranked(prompt, responses, [(1, -1, 0)[outcomes.index(1)], 0])
    cast = row["preference"] if "preference" in row else row.get("votes")
    return Ranked(prompt, responses, [meanings.margin(cast if isinstance(cast, list) else [cast]), 0])


def completions(row: Row, meanings: Meanings) -> Ranked:
    """Read several responses, with scores or ranks."""
    given = row.get("completions")
    if not isinstance(given, list) or len(given) < 2:
        raise Fault("completions is not a list of at least two responses")
    scores, ranks = row.get("scores"), row.get("ranks")
    if all(isinstance(one, dict) for one in given):
        scores, ranks = ([one.get(name) for one in given] for name in ("score", "rank"))
        given = [next((one[name] for name in ("text", "response", "content") if name in one), None) for one in given]
    prompt, responses = split(prompt_of(row.get("prompt")), ["completion"] * len(given), given, row.get("instruction"))
    if len(set(responses)) < len(responses):
        raise Fault("two completions are equal")
    worth = _numbers(scores) or [-rank for rank in _numbers(ranks)]
    if len(worth) != len(responses):
        raise Fault("neither scores nor ranks has one number for each completion")
    if len(set(worth)) == 1:
        raise Fault(TIE, "all completions have the same score or rank")
    return Ranked(prompt, responses, worth)


def labelled(row: Row, meanings: Meanings) -> Labelled:
    """Read a text and its label or rating."""
    if row.get("text") is not None:
        prompt, response = "", text_of(row["text"], "text", cleaned)
    elif "messages" in row:
        prompt, (response,) = split(None, ["messages"], [row["messages"]])
    elif row.get("prompt") is not None and "response" in row:
        prompt, (response,) = split(row["prompt"], ["response"], [row["response"]], row.get("instruction"))
    else:
        raise Fault("no text")
    if not is_missing(row.get("label")):
        return Labelled(prompt, response, meanings.label(row["label"]))
    if not is_missing(row.get("rating")):
        return Labelled(prompt, response, meanings.rating(row["rating"]))
    raise Fault("no label")


def plain(row: Row, meanings: Meanings) -> Plain:
    """Read a text for the corpus."""
    if row.get("text") is not None:
        return Plain(text_of(row["text"], "text", cleaned))
    prompt, (response,) = split(None, ["messages"], [row.get("messages")])
    return Plain(prompt + response)


def question(row: Row, meanings: Meanings) -> Plain:
    """Read a prompt."""
    for name in ("prompt", "text"):
        if row.get(name) is not None:
            return Plain(prompt_of(row[name]))
    name = "messages" if "messages" in row else "chosen"
    messages = row.get(name)
    if isinstance(messages, list) and messages and speaker(messages[-1]) != "Assistant":
        return Plain(transcript(messages) + TURN)
    return Plain(split(None, [name], [messages])[0])


def refuse_equal(names: Sequence[str], texts: Sequence[str]) -> None:
    """Refuse a pair of two equal texts.

    Raises:
        Fault: the two texts are equal.
    """
    if texts[0] == texts[1]:
        raise Fault(f"{names[0]} is equal to {names[1]}")


def _numbers(values: Any) -> list[float]:
    """Return a list of finite numbers, or an empty list for anything else."""
    numbers = [number_of(value) for value in values] if isinstance(values, list) else []
    return [number for number in numbers if number is not None] if None not in numbers else []
