"""The shapes in which people's rows come, recognised from their columns, and what each row becomes.

| shape       | columns                                                                              | becomes  |
|-------------|--------------------------------------------------------------------------------------|----------|
| preferences | `prompt`, `chosen`, `rejected`: texts, transcripts, or lists of messages              | Ranked   |
| transcripts | `chosen`, `rejected`: whole, as in HH-RLHF (2204.05862), or lists of messages         | Ranked   |
| votes       | `response_a`, `response_b`, `prompt` where they do not have it, and who is preferred  | Ranked   |
| completions | `prompt`, `completions`, `scores` (more is better) or `ranks` (1 is best)             | Ranked   |
| labelled    | `text`, or `prompt` and `response`, or `messages`; and `label` or `rating`            | Labelled |
| plain       | `text`, or `messages`                                                                 | Plain    |
| prompts     | `prompt`, or `messages`, or a transcript `chosen`, or `text`                          | Plain    |

Who is preferred: `preference`, one value or a list; or a column for each annotator, `annotator1` and so on; or a column for
each outcome, as LMSYS has them. `chosen_score` and `rejected_score` can stand beside `chosen` and `rejected`. A completion
can also be an object with `text`, and `score` or `rank`.

Labelled and plain texts become one line; prompts and responses keep their lines (dialogue.py). What labels, ratings and
preferences mean is in meanings.py.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from ..engine.messages import listed, shown
from ..engine.records import Row
from ..settings.data import Column, DataSettings
from .dialogue import prompt_of, speaker, split, text_of, transcript
from .faults import TIE, Fault
from .meanings import Meanings, is_missing, number_of
from .prompts import TURN
from .text import cleaned

# Names that columns often have elsewhere; `data.columns` tells of others. `input`, `votes` and `won_*` are names of ours alone.
ALIASES = {
    "sentence": "text",
    "review": "text",
    "sentiment": "label",
    "stars": "rating",
    "instruction": "prompt",
    "question": "prompt",
    "input": "input",
    "completion": "response",
    "output": "response",
    "responses": "completions",
    "score_chosen": "chosen_score",
    "score_rejected": "rejected_score",
    "winner": "preference",
    "winner_model_a": "won_a",
    "winner_model_b": "won_b",
    "winner_tie": "won_tie",
} | {
    f"{word}{between}{side}": f"response_{ours}"
    for word in ("response", "answer", "output", "completion", "conversation")
    for between in ("", "_")
    for side, ours in ("aa", "bb", "1a", "2b")
}
ANNOTATOR = re.compile(r"(annotator|rater|preference|vote)[ _-]?\d+")


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


def recognise(columns: Collection[str], wanted: Sequence[str], meanings: Meanings) -> Shape | None:
    """The shape of rows with these columns, or None.

    Args:
        wanted: names of shapes, the likeliest first. One that needs a column named in `data.columns` goes before all.
        meanings: the settings that say which column is which, and what labels and preferences mean.

    Raises:
        Fault: a column can be read in two ways.
    """
    data = meanings.data
    names = _renamed(data)
    theirs: dict[str, list[str]] = {}  # our name -> the columns that are read as it
    for column in columns:
        if ours := _ours(column, names):
            theirs.setdefault(ours, []).append(column)
    fitting = [(name, needed) for name in wanted for needed in SHAPES[name].columns if needed <= theirs.keys()]
    if not fitting:
        return None
    told = {"votes" if isinstance(column, list) else ours for ours, column in data.columns.items() if column is not None}
    name, needed = min(fitting, key=lambda one: not one[1] & told)  # the first of those that fit equally
    _check(needed, theirs, columns, told)

    def read(row: Row) -> Record:
        known: Row = {}
        taken: dict[str, str] = {}  # our name -> the column that it is
        for column, value in row.items():
            ours = _ours(column, names)
            if ours == "votes":
                known.setdefault(ours, []).append(value)
            elif ours and (ours not in known or column == ours):
                known[ours], taken[ours] = value, column.strip().casefold()
        if name == "votes":
            known |= _decoded({ours: known[ours] for ours in ("prompt", "response_a", "response_b") if ours in known})
        for text in _texts_in(known):
            if len(text) > data.max_characters:
                detail = f"{len(text)} characters, more than data.max_characters {data.max_characters}"
                raise Fault("more characters than data.max_characters", detail)
            if "\0" in text:
                raise Fault("holds a NUL byte")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise Fault("holds half a surrogate pair, which UTF-8 has not")
        if taken.get("prompt") == "instruction" and not is_missing(known.get("input")):  # Alpaca's rows ask in two columns
            known["instruction"] = text_of(known["prompt"], "prompt")
            known["prompt"] = f"{known['instruction']}\n\n{text_of(known['input'], 'input')}"
        return SHAPES[name].read(known, meanings)

    return Shape(name, read)


def _check(needed: set[str], theirs: dict[str, list[str]], columns: Collection[str], told: set[str]) -> None:
    """
    Args:
        needed: our names of the columns that a shape has.
        theirs: our name -> the columns that are read as it.
        columns: all columns.
        told: our names that `data.columns` tells.

    Raises:
        Fault: a column that the shape needs can be read in two ways.
    """
    plain = [column.strip().casefold() for column in columns]
    for ours in sorted(needed - told - {"votes"}):
        first, *others = theirs[ours]
        if others:
            raise Fault(
                f"{listed(theirs[ours])} are each read as {ours}: say which is, such as data.columns: {{{ours}: {first}}}"
            )
        zeroth = re.sub("1$", "0", first.strip())
        if ours == "response_a" and zeroth != first.strip() and zeroth.casefold() in plain:
            raise Fault(
                f"{zeroth} stands beside {first}, so that this may be the first or the second: say which is which, "
                f"such as data.columns: {{response_a: {zeroth}, response_b: {first}}}"
            )
    if "chosen" in needed - told and {"response_a", "response_b"} <= theirs.keys():
        (chosen,), (a, *_), (b, *_) = (theirs[ours] for ours in ("chosen", "response_a", "response_b"))
        raise Fault(
            f"{chosen} may be a text, or a vote for {a} or {b}: say which, by data.columns: {{chosen: {chosen}}} or "
            f"{{preference: {chosen}}}"
        )


def _renamed(data: DataSettings) -> dict[str, str]:
    """Their name of a column -> ours: as `data.columns` tells, else our own name or an alias of it."""
    told: dict[str, Any] = dict(data.columns)  # type: ignore[arg-type]
    usual = ALIASES | {name: name for name in get_args(Column)}
    names = {name: ours for name, ours in usual.items() if ours not in told}
    for ours, column in told.items():
        if isinstance(column, list):
            names |= dict.fromkeys(map(str, column), "votes")
        elif column is not None:
            names[str(column)] = ours
    return names


def _ours(column: str, names: dict[str, str]) -> str | None:
    plain = column.strip().casefold()
    found = names.get(column) or names.get(plain)
    is_vote = found is None and names.get("preference") == "preference" and ANNOTATOR.fullmatch(plain)
    return "votes" if is_vote else found


def _texts_in(value: Any) -> Iterator[str]:
    rest = [value]
    while rest:  # not by recursion: people's rows can be nested more deeply than that goes
        one = rest.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list | tuple | dict):
            rest.extend(one.values() if isinstance(one, dict) else one)


def _decoded(parts: Row) -> Row:
    """The prompt and the responses as texts, where each is a JSON list of one text, as in LMSYS's files; else as they are.

    Raises:
        Fault: they are lists of several turns, or of something else.
    """
    if not all(isinstance(value, str) and value.lstrip().startswith("[") for value in parts.values()):
        return parts
    try:
        lists = [json.loads(value) for value in parts.values()]
    except (ValueError, RecursionError):
        return parts
    if not all(len(one) == 1 and isinstance(one[0], str) for one in lists):
        raise Fault("prompt and responses are JSON lists, and not of one text each")
    return dict(zip(parts, (text for (text,) in lists), strict=True))


# Each of the readers below takes a row with our names of its columns.


def preference(row: Row, meanings: Meanings) -> Ranked:
    """A chosen and a rejected response."""
    names = ["chosen", "rejected"]
    prompt, responses = split(row.get("prompt"), names, [row.get(name) for name in names], row.get("instruction"))
    if responses[0] == responses[1]:
        raise Fault("chosen is equal to rejected")
    better, worse = number_of(row.get("chosen_score")), number_of(row.get("rejected_score"))
    if better is not None and better == worse:
        raise Fault(TIE, f"chosen and rejected have the same score, {better:g}")
    if better is not None and worse is not None and better < worse:
        raise Fault(
            "rejected has a higher score than chosen", f"rejected has a higher score, {worse:g}, than chosen, {better:g}"
        )
    return Ranked(prompt, responses, [1, 0])


def votes(row: Row, meanings: Meanings) -> Ranked:
    """Two responses and what one annotator or several preferred; a tie is for neither."""
    names = ["response_a", "response_b"]
    prompt, responses = split(row.get("prompt"), names, [row.get(name) for name in names], row.get("instruction"))
    if responses[0] == responses[1]:
        raise Fault("response_a is equal to response_b")
    if "won_a" in row and "preference" not in row:
        outcomes = [number_of(row.get(name)) for name in ("won_a", "won_b", "won_tie")]
        if sorted(map(str, outcomes)) != ["0.0", "0.0", "1.0"]:
            raise Fault("not one winner", f"winners are {shown(outcomes)}: should be a 1 and two 0")
        return Ranked(prompt, responses, [(1, -1, 0)[outcomes.index(1)], 0])
    said = row["preference"] if "preference" in row else row.get("votes")
    return Ranked(prompt, responses, [meanings.margin(said if isinstance(said, list) else [said]), 0])


def completions(row: Row, meanings: Meanings) -> Ranked:
    """Several responses, with scores or ranks."""
    given = row.get("completions")
    if not isinstance(given, list) or len(given) < 2:
        raise Fault("completions should be a list of two or more")
    scores, ranks = row.get("scores"), row.get("ranks")
    if all(isinstance(one, dict) for one in given):
        scores, ranks = ([one.get(name) for one in given] for name in ("score", "rank"))
        given = [next((one[name] for name in ("text", "response", "content") if name in one), None) for one in given]
    prompt, responses = split(prompt_of(row.get("prompt")), ["completion"] * len(given), given, row.get("instruction"))
    if len(set(responses)) < len(responses):
        raise Fault("two completions are the same text")
    worth = _numbers(scores) or [-rank for rank in _numbers(ranks)]
    if len(worth) != len(responses):
        raise Fault("should have a number in scores or ranks for each completion")
    if len(set(worth)) == 1:
        raise Fault(TIE, "all completions are tied")
    return Ranked(prompt, responses, worth)


def labelled(row: Row, meanings: Meanings) -> Labelled:
    """A text and its sentiment."""
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
    """A text, for the corpus."""
    if row.get("text") is not None:
        return Plain(text_of(row["text"], "text", cleaned))
    prompt, (response,) = split(None, ["messages"], [row.get("messages")])
    return Plain(prompt + response)


def question(row: Row, meanings: Meanings) -> Plain:
    """A prompt."""
    for name in ("prompt", "text"):
        if row.get(name) is not None:
            return Plain(prompt_of(row[name]))
    name = "messages" if "messages" in row else "chosen"
    messages = row.get(name)
    if isinstance(messages, list) and messages and speaker(messages[-1]) != "Assistant":
        return Plain(transcript(messages) + TURN)
    return Plain(split(None, [name], [messages])[0])


class _Known(NamedTuple):
    columns: list[set[str]]  # any of these sets
    read: Callable[[Row, Meanings], Record]


SHAPES = {
    "preferences": _Known([{"prompt", "chosen", "rejected"}], preference),
    "transcripts": _Known([{"chosen", "rejected"}], preference),
    "votes": _Known(
        [{"prompt", "response_a", "response_b", "preference"}]
        + [{"response_a", "response_b", *who} for who in (["preference"], ["votes"], ["won_a", "won_b", "won_tie"])],
        votes,
    ),
    "completions": _Known([{"prompt", "completions"}], completions),
    "labelled": _Known(
        [{*text, label} for label in ("label", "rating") for text in (["text"], ["prompt", "response"], ["messages"])], labelled
    ),
    "plain": _Known([{"text"}, {"messages"}], plain),
    "prompts": _Known([{"prompt"}, {"messages"}, {"chosen"}, {"text"}], question),
}
PREFERENCES = ("preferences", "transcripts", "votes", "completions")


def _numbers(values: Any) -> list[float]:
    """A list of finite numbers as such, anything else as an empty one."""
    numbers = [number_of(value) for value in values] if isinstance(values, list) else []
    return [number for number in numbers if number is not None] if None not in numbers else []
