"""The shapes of people's rows: recognised from their columns, and what each row becomes or why it cannot be used."""

from typing import Any

import pytest

from rlhf_sentiment.faults import Fault
from rlhf_sentiment.meanings import Meanings
from rlhf_sentiment.records import Row
from rlhf_sentiment.settings.data import DataSettings
from rlhf_sentiment.shapes import PREFERENCES, Labelled, Plain, Ranked, Record, recognise

from .conftest import tiny_params

ALL = (*PREFERENCES, "labelled")


def settings(**changes: Any) -> DataSettings:
    return DataSettings(**(tiny_params()["data"] | changes))


def become(row: Row, wanted: tuple[str, ...] = ALL, **changes: Any) -> Record:
    data = settings(**changes)
    shape = recognise(row, wanted, data, Meanings(data, "data.source"))
    assert shape is not None
    return shape.read(row)


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


TALK = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (
            {"prompt": "The film was ", "chosen": "good", "rejected": " bad\n"},
            Ranked("The film was", [" good", " bad"], [1, 0]),
        ),
        ({"chosen": TALK + " So.", "rejected": TALK + " Go\naway."}, Ranked(TALK, [" So.", " Go\naway."], [1, 0])),
        (
            {"chosen": [user("Hi"), assistant("So.")], "rejected": [user("Hi"), assistant("No.")]},
            Ranked("\n\nHuman: Hi\n\nAssistant:", [" So.", " No."], [1, 0]),
        ),
        (
            {
                "prompt": [user("Hi"), assistant("Yes?"), user("Why?")],
                "chosen": [assistant("So.")],
                "rejected": [assistant("No.")],
            },
            Ranked(TALK, [" So.", " No."], [1, 0]),
        ),
        (  # as UltraFeedback has it: the prompt stands again in the messages
            {"prompt": "Hi", "chosen": [user("Hi"), assistant("So.")], "rejected": [user("Hi"), assistant("No.")]},
            Ranked("\n\nHuman: Hi\n\nAssistant:", [" So.", " No."], [1, 0]),
        ),
        (
            {"prompt": "Hi", "chosen": [assistant("So.")], "rejected": [assistant("No.")]},
            Ranked("\n\nHuman: Hi\n\nAssistant:", [" So.", " No."], [1, 0]),
        ),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": "b"}, Ranked("It", [" a", " b"], [-1, 0])),
        (
            {"prompt": "It", "response_a": "a", "response_b": "b", "preference": ["A", "response_a", "tie", "model_b"]},
            Ranked("It", [" a", " b"], [1, 0]),
        ),
        (
            {"prompt": "It", "completions": ["a", "b", "c"], "scores": [1, 3.5, 2]},
            Ranked("It", [" a", " b", " c"], [1, 3.5, 2]),
        ),
        ({"prompt": "It", "responses": ["a", "b"], "ranks": [2, 1]}, Ranked("It", [" a", " b"], [-2, -1])),
        (
            {"prompt": "It", "completions": [{"text": "a", "score": 1}, {"content": "b", "score": 5}]},
            Ranked("It", [" a", " b"], [1, 5]),
        ),
        ({"text": "A<br />film", "label": "1"}, Labelled("", "A film", 1)),
        ({"review": "A film", "sentiment": " Negative"}, Labelled("", "A film", 0)),
        ({"Text": "A film", " LABEL": "pos"}, Labelled("", "A film", 1)),
        ({"sentence": "A film", "label": True}, Labelled("", "A film", 1)),
        ({"text": "A film", "rating": "8"}, Labelled("", "A film", 1)),
        ({"text": "A film", "label": None, "rating": 4}, Labelled("", "A film", 0)),
        ({"prompt": "It is", "completion": "fine", "label": 0}, Labelled("It is", " fine", 0)),
        ({"messages": [user("Hi"), assistant("So.")], "label": 1}, Labelled("\n\nHuman: Hi\n\nAssistant:", " So.", 1)),
    ],
)
def test_a_row_becomes_a_record(row: Row, record: Record) -> None:
    assert become(row) == record


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "It", "chosen": "a b", "rejected": " A B"}, None),
        ({"prompt": "It", "chosen": "a  b", "rejected": " a b"}, "chosen is equal to rejected"),
        ({"prompt": "It", "chosen": "", "rejected": "b"}, "no chosen"),
        ({"prompt": "It", "chosen": "a", "rejected": None}, "no rejected"),
        ({"prompt": "It", "chosen": 3, "rejected": "b"}, "chosen is 3, not text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "no prompt"),
        (
            {"chosen": TALK + " So.", "rejected": "\n\nHuman: Hi\n\nAssistant: So."},
            "chosen and rejected do not share their prompt",
        ),
        ({"chosen": TALK, "rejected": TALK + " So."}, "no response in chosen"),
        ({"chosen": "a", "rejected": "b"}, "chosen holds no 'Assistant:', and there is no prompt"),
        ({"chosen": [user("Hi")], "rejected": [user("Hi")]}, "chosen does not end with a message of the assistant's"),
        ({"chosen": [assistant("Hi")], "rejected": [assistant("Ho")]}, "chosen has no message before the assistant's"),
        (
            {"chosen": [{"from": "gpt"}], "rejected": []},
            "a message is no {role: user, human, assistant, system; content: text}",
        ),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": 1}, "preference is 1: should be a, b or tie"),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": []}, "no preference"),
        ({"prompt": "It", "response_a": "a", "response_b": "a", "preference": "a"}, "response_a is equal to response_b"),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, 1]}, "all completions are tied"),
        (
            {"prompt": "It", "completions": ["a", "b"], "scores": [1]},
            "should have a number in scores or ranks for each completion",
        ),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, float("nan")]}, "should have a number in scores or ranks"),
        ({"prompt": "It", "completions": ["a"], "scores": [1]}, "completions should be a list of two or more"),
        ({"text": "A film", "label": 2}, "label is 2: not 0 or 1, nor a word for them; data.labels can say what it means"),
        ({"text": "A film", "label": float("nan")}, "label is nan: not 0 or 1"),
        ({"text": "A film", "label": None}, "no label"),
        ({"text": "A film", "rating": 5}, "rating is 5: neither at most 4 nor at least 7"),
        ({"text": "A film", "rating": "good"}, "rating is 'good', not a number"),
        ({"text": None, "label": 1}, "no text"),
        ({"text": None, "response": "b", "label": 1}, "no text"),
        ({"text": "<br />", "label": 1}, "no text"),
        ({"prompt": "It", "chosen": "<br>", "rejected": "b"}, "no chosen"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "no prompt"),
        (
            {"prompt": 5, "chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]},
            "prompt is 5, not text",
        ),
        ({"chosen": [{"role": ["user"], "content": "a"}], "rejected": []}, "a message is no {role: "),
        (
            {"prompt": "It", "completions": [{"text": "a", "score": 1}, None]},
            "completion is {'text': 'a', 'score': 1}, not text",
        ),
        ({"prompt": "It", "completions": ["a", "b", "a"], "scores": [3, 2, 1]}, "two completions are the same text"),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, 10**400]}, "should have a number in scores or ranks"),
        ({"text": "A film", "label": 10**400}, "label is 1000"),
        ({"text": "A film", "rating": 10**400}, "rating is 1000"),
        ({"text": "A\0film", "label": 1}, "holds a NUL byte"),
        ({"text": "A \ud83d film", "label": 1}, "holds half a surrogate pair"),
        ({"text": "x" * 100_001, "label": 1}, "100001 characters, more than data.max_characters 100000"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: Row, said: str | None) -> None:
    if said is None:
        become(row)
        return
    with pytest.raises(Fault) as fault:
        become(row)
    assert str(fault.value).startswith(said)


def test_columns_and_labels_can_be_told() -> None:
    row = {"body": "A film", "verdict": "thumbs up", "text": "not this", "id": 3}
    columns = {"text": "body", "label": "verdict"}
    labels = {"negative": ["thumbs down"], "positive": ["Thumbs Up"]}
    assert become(row, columns=columns, labels=labels) == Labelled("", "A film", 1)
    with pytest.raises(Fault, match=r"label is 1: data\.labels does not name it"):
        become(row | {"verdict": 1}, columns=columns, labels=labels)
    assert become({"text": "A film", "label": "3"}, labels={"negative": [1, 2], "positive": [3.0]}) == Labelled("", "A film", 1)
    assert recognise(["text", "label"], ALL, settings(columns={"text": "body"})) is None, (
        "a column that was named and is not there"
    )


def test_a_named_column_decides_between_two_shapes() -> None:
    row = {"prompt": "It", "chosen": "a", "rejected": "b", "text": "A film", "label": 1}
    assert isinstance(become(row), Ranked)
    assert isinstance(become(row, columns={"text": "text"}), Labelled)


def test_plain_texts_and_prompts() -> None:
    assert become({"text": "A\nfilm", "label": 1}, ("plain",)) == Plain("A film")
    assert become({"messages": [user("Hi"), assistant("So.")]}, ("plain",)) == Plain("\n\nHuman: Hi\n\nAssistant: So.")
    for row in ({"prompt": TALK}, {"chosen": TALK + " So."}, {"messages": [user("Hi"), assistant("Yes?"), user("Why?")]}):
        assert become(row, ("prompts",)) == Plain(TALK)
    assert become({"text": "The film was "}, ("prompts",)) == Plain("The film was")


def test_letters_of_every_script_stay() -> None:
    text = "הסרט היה נפלא 🎬👨‍👩‍👧 والفيلم رائع"
    assert become({"text": text, "label": 1}) == Labelled("", text, 1)
    assert become({"prompt": text, "chosen": "א", "rejected": "ב"}) == Ranked(text, [" א", " ב"], [1, 0])


def test_what_has_no_shape_is_none() -> None:
    assert recognise(["said"], ALL, settings()) is None
    assert recognise(["text"], ALL, settings()) is None
