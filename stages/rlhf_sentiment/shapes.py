"""The shapes in which people's rows come, recognised from their columns, and what each row becomes.

| shape       | columns                                                                       | becomes  |
|-------------|-------------------------------------------------------------------------------|----------|
| preferences | `prompt`, `chosen`, `rejected`: texts, or lists of messages                    | Ranked   |
| transcripts | `chosen`, `rejected`: whole, as in HH-RLHF (2204.05862), or lists of messages  | Ranked   |
| votes       | `prompt`, `response_a`, `response_b`, `preference`: a, b, tie, or annotators' lists | Ranked   |
| completions | `prompt`, `completions`, `scores` (more is better) or `ranks` (1 is best)        | Ranked   |
| labelled    | `text`, or `prompt` and `response`, or `messages`; and `label` or `rating`     | Labelled |
| plain       | `text`, or `messages`                                                          | Plain    |
| prompts     | `prompt`, or `messages`, or a transcript `chosen`, or `text`                   | Plain    |

A completion can also be an object with `text`, and `score` or `rank`. A dialogue of messages becomes a transcript,
"\\n\\nHuman: ...\\n\\nAssistant: ...", whose prompt ends with "\\n\\nAssistant:".

White space goes by one rule: labelled and plain texts become one line, prompts and responses keep their lines (text.py),
and a response begins with one space, so that prompt + response reads as one text.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from .messages import shown
from .prompts import TURN
from .records import Row
from .settings.data import Column, DataSettings, plainly
from .text import cleaned, cleaned_lines

SPEAKERS = {"user": "Human", "human": "Human", "assistant": "Assistant", "system": "System"}
# Names that columns often have elsewhere; `data.columns` tells of others.
ALIASES = {
    "sentence": "text",
    "review": "text",
    "sentiment": "label",
    "stars": "rating",
    "responses": "completions",
    "completion": "response",
}
NEGATIVE: tuple[Any, ...] = (0, "neg", "negative", "false")
POSITIVE: tuple[Any, ...] = (1, "pos", "positive", "true")


class Fault(ValueError):  # noqa: N818 (the row's, not the program's)
    """A row cannot be used; the message says why."""


class Labelled(NamedTuple):
    """A labelled text, which is `prompt + response`; label 1 is positive. `prompt` is empty where the row has none."""

    prompt: str
    response: str
    label: int


class Ranked(NamedTuple):
    """Responses to one prompt, and how good each is: of two that differ in score, the better is preferred."""

    prompt: str
    responses: list[str]
    scores: list[float]


class Plain(NamedTuple):
    """A text."""

    text: str


Record = Labelled | Ranked | Plain


class Shape(NamedTuple):
    """A recognised shape: its name, and the function from a row to its record, which raises `Fault`."""

    name: str
    read: Callable[[Row], Record]


def recognise(columns: Iterable[str], wanted: Sequence[str], data: DataSettings) -> Shape | None:
    """The shape of rows with these columns, or None.

    Args:
        wanted: names of shapes, the likeliest first. One that needs a column named in `data.columns` goes before all.
        data: says what columns and labels mean.
    """
    names = _renamed(data)
    theirs = {ours for column in columns if (ours := names.get(column) or names.get(column.strip().casefold()))}
    fitting = [(name, needed) for name in wanted for needed in SHAPES[name].columns if needed <= theirs]
    if not fitting:
        return None
    told = {ours for ours, column in data.columns.items() if column is not None}
    name, _ = min(fitting, key=lambda one: not one[1] & told)  # the first of those that fit equally

    def read(row: Row) -> Record:
        known: Row = {}
        for column, value in row.items():
            ours = names.get(column) or names.get(column.strip().casefold())
            if ours and (ours not in known or column == ours):
                known[ours] = value
        for text in _texts_in(known):
            if len(text) > data.max_characters:
                raise Fault(f"{len(text)} characters, more than data.max_characters {data.max_characters}")
            if "\0" in text:
                raise Fault("holds a NUL byte")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise Fault("holds half a surrogate pair, which UTF-8 has not")
        return SHAPES[name].read(known, data)

    return Shape(name, read)


def _renamed(data: DataSettings) -> dict[str, str]:
    """Their name of a column -> ours: as `data.columns` tells, else our own name or an alias of it."""
    told = {ours: None if name is None else str(name) for ours, name in data.columns.items()}
    usual = ALIASES | {name: name for name in get_args(Column)}
    names = {name: ours for name, ours in usual.items() if ours not in told}
    return names | {name: ours for ours, name in told.items() if name is not None}


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(inner)


# Each of the readers below takes a row with our names of its columns.


def preference(row: Row, data: DataSettings) -> Ranked:
    """A chosen and a rejected response."""
    (before, chosen), (same, rejected) = (_split(row.get("prompt"), row[side], side) for side in ("chosen", "rejected"))
    if before != same:
        raise Fault("chosen and rejected do not share their prompt")
    if chosen == rejected:
        raise Fault("chosen is equal to rejected")
    return Ranked(before, [chosen, rejected], [1, 0])


def votes(row: Row, data: DataSettings) -> Ranked:
    """Two responses and what one annotator or several preferred; a tie is for neither."""
    prompt = _prompt(row["prompt"])
    responses = [_response(row[name], name) for name in ("response_a", "response_b")]
    if responses[0] == responses[1]:
        raise Fault("response_a is equal to response_b")
    said = row["preference"] if isinstance(row["preference"], list) else [row["preference"]]
    margin = 0
    for one in said:
        word = str(one).strip().casefold().removeprefix("response_").removeprefix("model_")
        if word not in ("a", "b") and not word.startswith("tie"):
            raise Fault(f"preference is {shown(one)}: should be a, b or tie")
        margin += (word == "a") - (word == "b")
    if not said:
        raise Fault("no preference")
    return Ranked(prompt, responses, [margin, 0])


def completions(row: Row, data: DataSettings) -> Ranked:
    """Several responses, with scores or ranks."""
    prompt, given = _prompt(row["prompt"]), row["completions"]
    if not isinstance(given, list) or len(given) < 2:
        raise Fault("completions should be a list of two or more")
    scores, ranks = row.get("scores"), row.get("ranks")
    if all(isinstance(one, dict) for one in given):
        scores, ranks = ([one.get(name) for one in given] for name in ("score", "rank"))
        given = [next((one[name] for name in ("text", "response", "content") if name in one), None) for one in given]
    responses = [_response(one, "completion") for one in given]
    if len(set(responses)) < len(responses):
        raise Fault("two completions are the same text")
    worth = _numbers(scores) or [-rank for rank in _numbers(ranks)]
    if len(worth) != len(responses):
        raise Fault("should have a number in scores or ranks for each completion")
    if len(set(worth)) == 1:
        raise Fault("all completions are tied")
    return Ranked(prompt, responses, worth)


def labelled(row: Row, data: DataSettings) -> Labelled:
    """A text and its sentiment."""
    if row.get("text") is not None:
        prompt, response = "", _text(row["text"], "text", cleaned)
    elif "messages" in row:
        prompt, response = _split(None, row["messages"], "messages")
    elif row.get("prompt") is not None and "response" in row:
        prompt, response = _split(row["prompt"], row["response"], "response")
    else:
        raise Fault("no text")
    label = row.get("label")
    if label is None and row.get("rating") is None:
        raise Fault("no label")
    return Labelled(prompt, response, _sentiment(label, data) if label is not None else _rated(row["rating"], data))


def plain(row: Row, data: DataSettings) -> Plain:
    """A text, for the corpus."""
    if row.get("text") is not None:
        return Plain(_text(row["text"], "text", cleaned))
    return Plain("".join(_split(None, row.get("messages"), "messages")))


def question(row: Row, data: DataSettings) -> Plain:
    """A prompt."""
    for name in ("prompt", "text"):
        if row.get(name) is not None:
            return Plain(_prompt(row[name]))
    name = "messages" if "messages" in row else "chosen"
    messages = row.get(name)
    if isinstance(messages, list) and messages and _speaker(messages[-1]) != "Assistant":
        return Plain(_transcript(messages) + TURN)
    return Plain(_split(None, messages, name)[0])


class _Known(NamedTuple):
    columns: list[set[str]]  # any of these sets
    read: Callable[[Row, DataSettings], Record]


SHAPES = {
    "preferences": _Known([{"prompt", "chosen", "rejected"}], preference),
    "transcripts": _Known([{"chosen", "rejected"}], preference),
    "votes": _Known([{"prompt", "response_a", "response_b", "preference"}], votes),
    "completions": _Known([{"prompt", "completions"}], completions),
    "labelled": _Known(
        [{*text, label} for label in ("label", "rating") for text in (["text"], ["prompt", "response"], ["messages"])], labelled
    ),
    "plain": _Known([{"text"}, {"messages"}], plain),
    "prompts": _Known([{"prompt"}, {"messages"}, {"chosen"}, {"text"}], question),
}
PREFERENCES = ("preferences", "transcripts", "votes", "completions")


def _text(value: Any, name: str, clean: Callable[[str], str] = cleaned_lines) -> str:
    """A text, cleaned, that is not empty."""
    if value is not None and not isinstance(value, str):
        raise Fault(f"{name} is {shown(value)}, not text")
    text = clean(value or "")
    if not text.strip():
        raise Fault(f"no {name}")
    return text


def _response(value: Any, name: str) -> str:
    return " " + _text(value, name).strip()


def _prompt(value: Any) -> str:
    return _transcript(value) + TURN if isinstance(value, list) and value else _text(value or None, "prompt")


def _split(prompt: Any, whole: Any, name: str) -> tuple[str, str]:
    """The prompt and the response of a side: a response after its prompt, a transcript, or messages."""
    if prompt is not None and not isinstance(prompt, str | list):
        raise Fault(f"prompt is {shown(prompt)}, not text")
    if isinstance(whole, list):
        if not whole or _speaker(whole[-1]) != "Assistant":
            raise Fault(f"{name} does not end with a message of the assistant's")
        before: list[Any] = whole[:-1]
        if not before and prompt is None:
            raise Fault(f"{name} has no message before the assistant's")
        if isinstance(prompt, str) and not before:
            before = [{"role": "user", "content": prompt}]
        elif isinstance(prompt, list):
            before = prompt + before
        return _transcript(before) + TURN, _response(whole[-1]["content"], name)
    if prompt is not None:
        return _prompt(prompt), _response(whole, name)
    start, turn, response = _text(whole, name).rpartition(TURN)
    if not turn:
        raise Fault(f"{name} holds no {shown(TURN.strip())}, and there is no prompt")
    return start + turn, _response(response, f"response in {name}")


def _speaker(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in SPEAKERS or not isinstance(message.get("content"), str):
        raise Fault(f"a message is no {{role: {', '.join(SPEAKERS)}; content: text}}")
    return SPEAKERS[role]


def _transcript(messages: list[Any]) -> str:
    return "".join(f"\n\n{_speaker(message)}: {cleaned_lines(message['content']).strip()}" for message in messages)


def _numbers(values: Any) -> list[float]:
    """A list of finite numbers as such, anything else as an empty one."""
    try:
        known = isinstance(values, list) and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    except OverflowError:  # a whole number of hundreds of digits
        return []
    return [float(value) for value in values] if known else []


def _sentiment(label: Any, data: DataSettings) -> int:
    meanings = (data.labels.negative, data.labels.positive) if data.labels else (NEGATIVE, POSITIVE)
    for number, meaning in enumerate(meanings):
        if plainly(label) in map(plainly, meaning):
            return number
    asked = (
        "data.labels does not name it" if data.labels else "not 0 or 1, nor a word for them; data.labels can say what it means"
    )
    raise Fault(f"label is {shown(label)}: {asked}")


def _rated(rating: Any, data: DataSettings) -> int:
    try:
        number = float(rating)
    except (TypeError, ValueError, OverflowError):
        raise Fault(f"rating is {shown(rating)}, not a number") from None
    if number <= data.rating_negative:
        return 0
    if number >= data.rating_positive:
        return 1
    raise Fault(f"rating is {number:g}: neither at most {data.rating_negative:g} nor at least {data.rating_positive:g}")
