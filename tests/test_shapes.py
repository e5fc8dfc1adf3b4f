"""The shapes of rows: they are recognised from the columns. Each row is converted, or refused with a reason."""

from typing import Any

import pytest

from rlhf_sentiment.data.faults import TIE, Fault
from rlhf_sentiment.data.meanings import Meanings
from rlhf_sentiment.data.readers import Labelled, Plain, Ranked, Record
from rlhf_sentiment.data.shapes import PREFERENCES, recognise
from rlhf_sentiment.engine.records import Row
from rlhf_sentiment.settings.data import DataSettings

from .conftest import assert_names, tiny_params

ALL = (*PREFERENCES, "labelled")


def settings(**changes: Any) -> DataSettings:
    return DataSettings(**(tiny_params()["data"] | changes))


def become(row: Row, wanted: tuple[str, ...] = ALL, **changes: Any) -> Record:
    shape = recognise(row, wanted, Meanings(settings(**changes), "data.source"))
    assert shape is not None
    return shape.read(row)._replace(messages=None)  # test_chat.py tests them


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
        (  # as in UltraFeedback: the messages repeat the prompt
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
        (  # as in PandaLM
            {
                "instruction": "Sum up.",
                "input": "A film",
                "response1": "a",
                "response2": "b",
                "annotator1": "A",
                "annotator2": "tie",
            },
            Ranked("Sum up.\n\nA film", [" a", " b"], [1, 0]),
        ),
        (
            {"instruction": "Sum up.", "input": "", "output": "A sum", "label": 1},
            Labelled("Sum up.", " A sum", 1),
        ),
        (  # as in LMSYS
            {
                "conversation_a": [user("Hi"), assistant("a")],
                "conversation_b": [user("Hi"), assistant("b")],
                "winner": "model_b",
            },
            Ranked("\n\nHuman: Hi\n\nAssistant:", [" a", " b"], [-1, 0]),
        ),
        ({"prompt": "It", "answer_1": "a", "answer_2": "b", "winner": "tie (bothbad)"}, Ranked("It", [" a", " b"], [0, 0])),
        (
            {
                "prompt": "It",
                "response_a": "a",
                "response_b": "b",
                "winner_model_a": "0",
                "winner_model_b": "1",
                "winner_tie": 0,
            },
            Ranked("It", [" a", " b"], [-1, 0]),
        ),
        (  # as in LMSYS: lists of one turn, stored as text
            {"prompt": '["It\\nis"]', "response_a": '["a"]', "response_b": '[ "b"]', "winner": "tie"},
            Ranked("It\nis", [" a", " b"], [0, 0]),
        ),
        (
            {"prompt": '["It"]', "response_a": '["a"]', "response_b": "b", "winner": "tie"},
            Ranked('["It"]', [' ["a"]', " b"], [0, 0]),
        ),
        (
            {"prompt": "It", "chosen": "a", "rejected": "b", "score_chosen": 7, "score_rejected": None},
            Ranked("It", [" a", " b"], [1, 0]),
        ),
    ],
)
def test_a_row_becomes_a_record(row: Row, record: Record) -> None:
    assert become(row) == record


def test_responses_that_differ_only_in_case_are_two_responses() -> None:
    assert become({"prompt": "It", "chosen": "a b", "rejected": " A B"}) == Ranked("It", [" a b", " A B"], [1, 0])


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"prompt": "It", "chosen": "a  b", "rejected": " a b"}, ["chosen", "equal", "rejected"]),
        ({"prompt": "It", "chosen": "", "rejected": "b"}, ["no chosen"]),
        ({"prompt": "It", "chosen": "a", "rejected": None}, ["no rejected"]),
        ({"prompt": "It", "chosen": 3, "rejected": "b"}, ["chosen is 3", "not text"]),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, ["no prompt"]),
        (
            {"chosen": TALK + " So.", "rejected": "\n\nHuman: Hi\n\nAssistant: So."},
            ["different prompts", "chosen", "rejected"],
        ),
        ({"chosen": TALK, "rejected": TALK + " So."}, ["no response", "chosen"]),
        ({"chosen": "a", "rejected": "b"}, ["no prompt", "'Assistant:'", "chosen"]),
        ({"chosen": [user("Hi")], "rejected": [user("Hi")]}, ["last message", "chosen", "assistant"]),
        ({"chosen": [assistant("Hi")], "rejected": [assistant("Ho")]}, ["chosen", "no message before"]),
        (
            {"chosen": [{"from": "gpt"}], "rejected": []},
            ["message", "{role: ", "user, human, assistant, system"],
        ),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": 1}, ["preference is 1", "no known meaning"]),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": [None, ""]}, ["no preference"]),
        (
            {"prompt": "It", "response_a": "a", "response_b": "b", "preference": ["a", ["b"]]},
            ["preference is ['b']", "not a number"],
        ),
        (
            {"question": "It", "answer_a": "a", "answer_b": "b", "winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0},
            ["winners", "[1.0, 1.0, 0.0]"],
        ),
        (
            {"prompt": "It", "chosen": "a", "rejected": "b", "score_chosen": 6, "score_rejected": 7},
            ["rejected", "higher score", "(7)", "(6)"],
        ),
        ({"prompt": "It", "chosen": b"a", "rejected": "b"}, ["chosen is b'a'", "not text"]),
        ({"prompt": {"a": 1}, "chosen": "a", "rejected": "b"}, ["prompt is {'a': 1}", "not text"]),
        ({"prompt": "It", "chosen": 10**400, "rejected": "b"}, ["chosen is 1000", "not text"]),
        ({"instruction": "It", "input": 3, "output": "a", "label": 1}, ["input is 3", "not text"]),
        ({"text": "A film", "label": [1]}, ["label is [1]", "not a number"]),
        ({"text": "A film", "label": {"a": 1}}, ["label is {'a': 1}", "not a number"]),
        (
            {"prompt": "What?", "chosen": [user("Who?"), assistant("a")], "rejected": [user("Who?"), assistant("b")]},
            ["messages of chosen", "not match", "prompt"],
        ),
        (
            {"prompt": "What?", "chosen": "Human: What?\nAssistant: a", "rejected": "Human: What?\nAssistant: b"},
            ["response repeats", "prompt", "transcript"],
        ),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": []}, ["no preference"]),
        ({"prompt": "It", "response_a": "a", "response_b": "a", "preference": "a"}, ["response_a", "equal", "response_b"]),
        (
            {"prompt": "It", "completions": ["a", "b"], "scores": [1]},
            ["scores", "ranks", "each completion"],
        ),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, float("nan")]}, ["scores", "ranks", "each completion"]),
        ({"prompt": "It", "completions": ["a"], "scores": [1]}, ["completions", "list", "two"]),
        ({"text": "A film", "label": 2}, ["label is 2", "no known meaning"]),
        ({"text": "A film", "label": float("nan")}, ["no label"]),
        ({"text": "A film", "label": " "}, ["no label"]),
        ({"text": "A film", "label": "", "rating": float("nan")}, ["no label"]),
        ({"text": "A film", "label": None}, ["no label"]),
        ({"text": "A film", "rating": 5}, ["rating is 5", "data.rating_negative 4", "data.rating_positive 7"]),
        ({"text": "A film", "rating": "good"}, ["rating is 'good'", "not a number"]),
        ({"text": None, "label": 1}, ["no text"]),
        ({"text": None, "response": "b", "label": 1}, ["no text"]),
        ({"text": "<br />", "label": 1}, ["no text"]),
        ({"prompt": "It", "chosen": "<br>", "rejected": "b"}, ["no chosen"]),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, ["no prompt"]),
        (
            {"prompt": 5, "chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]},
            ["prompt is 5", "not text"],
        ),
        ({"chosen": [{"role": ["user"], "content": "a"}], "rejected": []}, ["message", "{role: "]),
        (
            {"prompt": "It", "completions": [{"text": "a", "score": 1}, None]},
            ["message", "{role: "],
        ),
        ({"prompt": "It", "completions": ["a", "b", "a"], "scores": [3, 2, 1]}, ["two completions", "equal"]),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, 10**400]}, ["scores", "ranks", "each completion"]),
        ({"text": "A film", "label": 10**400}, ["label is 1000", "no known meaning"]),
        ({"text": "A film", "rating": 10**400}, ["rating is 1000", "not a number"]),
        ({"text": "A\0film", "label": 1}, ["NUL"]),
        ({"prompt": '["It"]', "answer_a": '["a"]', "answer_b": '["\\u0000"]', "winner": "a"}, ["NUL"]),
        (
            {"prompt": '["It"]', "response_a": '["a"]', "response_b": '["b", "c"]', "winner": "a"},
            ["JSON list", "one text"],
        ),
        ({"text": "A \ud83d film", "label": 1}, ["surrogate"]),
        ({"text": "x" * 100_001, "label": 1}, ["100001 characters", "data.max_characters 100000"]),
    ],
)
def test_a_row_that_cannot_be_used_is_a_fault_with_the_reason(row: Row, parts: list[str]) -> None:
    with pytest.raises(Fault) as fault:
        become(row)
    assert_names(fault.value, *parts)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (
            {"prompt": "It", "chosen": "a", "rejected": "b", "score_chosen": "7", "score_rejected": 7.0},
            ["chosen", "rejected", "same score", "7"],
        ),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, 1]}, ["all completions", "same score"]),
    ],
)
def test_equal_scores_are_a_tie(row: Row, parts: list[str]) -> None:
    with pytest.raises(Fault) as fault:
        become(row)
    assert fault.value.kind == TIE
    assert_names(fault.value, *parts)


HI = "\n\nHuman: Hi there\n\nAssistant:"
KIND = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("prompt", "sides", "becomes"),
    [
        # The response repeats the messages of the prompt, and may add more. Either or both have a system message.
        ([user("Hi there")], [[user("Hi there"), assistant(side)] for side in "ab"], HI),
        ([KIND, user("Hi there")], [[KIND, user("Hi there"), assistant(side)] for side in "ab"], "\n\nSystem: Be kind." + HI),
        ([KIND, user("Hi there")], [[user("Hi there"), assistant(side)] for side in "ab"], "\n\nSystem: Be kind." + HI),
        ([user("Hi there")], [[KIND, user("Hi there"), assistant(side)] for side in "ab"], "\n\nSystem: Be kind." + HI),
        ([user("Hi")], [[user("Hi"), assistant("Yes?"), user("Why?"), assistant(side)] for side in "ab"], TALK),
        (
            [KIND, user("Hi")],
            [[user("Hi"), assistant("Yes?"), user("Why?"), assistant(side)] for side in "ab"],
            "\n\nSystem: Be kind." + TALK,
        ),
        # Only the last question, or the text after the prompt.
        ([user("Hi"), assistant("Yes?"), user("Why?")], [[user("Why?"), assistant(side)] for side in "ab"], TALK),
        ([user("Hi")], [[assistant("Yes?"), user("Why?"), assistant(side)] for side in "ab"], TALK),
        ([user("Hi"), assistant("Yes?")], [[user("Why?"), assistant(side)] for side in "ab"], TALK),
        # A text that is one of the messages, or a single message.
        ("Hi there ", [[KIND, user("Hi  there"), assistant(side)] for side in "ab"], "\n\nSystem: Be kind." + HI),
        ("Why?", [[user("Hi"), assistant("Yes?"), user("Why?"), assistant(side)] for side in "ab"], TALK),
        ("Hi there", [assistant(side) for side in "ab"], HI),
        # A transcript, and messages or transcripts that begin with this transcript.
        (HI, [[user("Hi there"), assistant(side)] for side in "ab"], HI),
        (HI, [[assistant(side)] for side in "ab"], HI),
        (HI, [f"{HI} {side}" for side in "ab"], HI),
        (HI, [f"{HI.strip()} {side}" for side in "ab"], HI),
        (HI, [f"{HI} a", "b"], HI),
        ([user("Hi there")], [f"{HI} {side}" for side in "ab"], HI),
        ("Hi there", [f"{HI} {side}" for side in "ab"], HI),
        ("Q: Hi\nAssistant:", ["Q: Hi\nAssistant: a", "b"], "Q: Hi\nAssistant:"),
        # Plain texts that all begin with the prompt.
        ("The film was ", ["The film was a", "The  film was b"], "The film was"),
        ("What is it?", ["What is it?\n\na", "What is it? b"], "What is it?"),
        ("What\n\nis it?", ["What is it? a", "What is\nit?\nb"], "What\n\nis it?"),
        # The response repeats the prompt, in any form.
        ([user("Hi there")], [f"Hi there {side}" for side in "ab"], HI),
        (HI, [f"Hi there {side}" for side in "ab"], HI),
        ([user("Hi there")], [[user("Hi there"), assistant(f"Hi there {side}")] for side in "ab"], HI),
        ("Hi there", [assistant(f"Hi there\n{side}") for side in "ab"], HI),
        ("Hi there", [f"{HI} Hi there {side}" for side in "ab"], HI),
        ([user("Hi there")], [f"Human: Hi there\nAssistant: {side}" for side in "ab"], HI),
    ],
)
def test_the_prompt_is_removed_from_the_responses(prompt: Any, sides: list[Any], becomes: str) -> None:
    ranked = Ranked(becomes, [" a", " b"], [1, 0])
    assert become({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]}) == ranked
    assert become({"prompt": prompt, "response_a": sides[0], "response_b": sides[1], "preference": "a"}) == ranked
    if not isinstance(sides[0], dict):
        assert become({"prompt": prompt, "completions": sides, "ranks": [-1, 0]}) == ranked
        assert become({"prompt": prompt, "response": sides[0], "label": 1}) == Labelled(becomes, " a", 1)


@pytest.mark.parametrize(
    ("prompt", "sides"),
    [
        ("What is it?", [" What is it? a", " b"]),  # only one response begins with it
        ("The film was", [" The film wasted my time", " The film was bad"]),  # the prompt would end in the middle of a word
        ("Hi", [" Hi there", " Hi you"]),  # one word may begin any answer
        ("Film 1", [" Film 10 is good", " Film 1 is bad"]),
        ("The film", [" is this: The film and no more", " has a title: The film"]),  # not after a mark of a speaker
        ("I love", [" a person I love", " this human. I love it"]),
    ],
)
def test_a_beginning_that_may_not_be_the_prompt_stays_in_the_response(prompt: str, sides: list[str]) -> None:
    assert become({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]}) == Ranked(prompt, sides, [1, 0])


@pytest.mark.parametrize("joined", ["Sum up.\n\nA film", "Sum up.\nA film", "Sum up. A film", "Sum up."])
def test_an_instruction_and_its_input_are_removed_from_the_responses(joined: str) -> None:
    asked = {"instruction": "Sum up.", "input": "A film"}
    row = asked | {"chosen": f"{joined} a", "rejected": f"{joined}\nb"}
    assert become(row) == Ranked("Sum up.\n\nA film", [" a", " b"], [1, 0])
    assert become(asked | {"output": f"{joined} a", "label": 1}) == Labelled("Sum up.\n\nA film", " a", 1)


@pytest.mark.parametrize(
    "form",
    [
        "Human: {}\nAI: ",
        "User: {}\n\nAssistant: ",
        "### Human: {}### Assistant: ",
        "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nYou are kind, and you always say so.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n",
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
        "[INST] {} [/INST]",
        "Question: {}\nAnswer: ",
        "Customer: {}\nAgent: ",
    ],
)
@pytest.mark.parametrize("prompt", ["What is it?", [user("What is it?")], "What\nis it?"])
def test_a_prompt_inside_an_unknown_transcript_format_is_a_fault(form: str, prompt: Any) -> None:
    sides = [form.format("What is it?") + side for side in "ab"]
    rows = [
        {"prompt": prompt, "chosen": sides[0], "rejected": sides[1]},
        {"prompt": prompt, "completions": sides, "scores": [2, 1]},
        {"prompt": prompt, "response": sides[0], "label": 1},
    ]
    for row in rows:
        with pytest.raises(Fault) as fault:
            become(row)
        assert_names(fault.value, "response repeats", "prompt", "transcript")
    assert isinstance(become(rows[0] | {"rejected": "b"}), Ranked), "only one response contains the prompt"


def test_rows_without_a_column_or_with_deeply_nested_values_are_faults() -> None:
    for like in (
        {"prompt": "It", "chosen": "a", "rejected": "b"},
        {"chosen": TALK + " a", "rejected": TALK + " b"},
        {"prompt": "It", "response_a": "a", "response_b": "b", "preference": "a"},
        {"prompt": "It", "completions": ["a", "b"], "scores": [1, 2]},
        {"text": "A film", "label": 1},
        {"prompt": "It", "response": "a", "rating": 9},
    ):
        shape = recognise(like, ALL, Meanings(settings(), "data.source"))
        assert shape is not None
        shape.read(like)
        nested: Any = "a"
        for _ in range(5000):
            nested = [nested]
        for column in like:
            with pytest.raises(Fault):
                shape.read({name: value for name, value in like.items() if name != column})
            for value in (nested, {"a": nested}, b"a", 3 if column not in ("label", "rating") else b"a"):
                with pytest.raises(Fault) as fault:
                    shape.read(like | {column: value})
                assert len(str(fault.value)) < 200


def test_settings_name_the_columns_and_the_labels() -> None:
    row = {"body": "A film", "verdict": "thumbs up", "text": "not this", "id": 3}
    columns = {"text": "body", "label": "verdict"}
    labels = {"negative": ["thumbs down"], "positive": ["Thumbs Up"]}
    assert become(row, columns=columns, labels=labels) == Labelled("", "A film", 1)
    with pytest.raises(Fault) as fault:
        become(row | {"verdict": 1}, columns=columns, labels=labels)
    assert_names(fault.value, "label is 1", "not in data.labels")
    assert become({"text": "A film", "label": "3"}, labels={"negative": [1, 2], "positive": [3.0]}) == Labelled("", "A film", 1)
    assert recognise(["text", "label"], ALL, Meanings(settings(columns={"text": "body"}), "data.source")) is None, (
        "data.columns names a column that the file does not have"
    )


def test_settings_name_the_columns_of_annotators() -> None:
    row = {"prompt": "It", "left": "a", "right": "b", "ann": 1, "bob": 2, "cleo": 2, "dan": 0}
    columns = {"response_a": "left", "response_b": "right", "preference": ["ann", "bob", "cleo"]}
    values = {"a": [1], "b": ["2"], "tie": [0]}
    assert become(row, columns=columns, preference_values=values) == Ranked("It", [" a", " b"], [-1, 0])
    assert become(row, columns=columns | {"preference": "ann"}, preference_values=values) == Ranked("It", [" a", " b"], [1, 0])
    graded = {"a": [-3, -2, -1], "b": [1, 2, 3], "tie": [0]}
    row |= {"preference_strength": -2.0}
    graded_column = columns | {"preference": "preference_strength"}
    assert become(row, columns=graded_column, preference_values=graded) == Ranked("It", [" a", " b"], [1, 0])
    with pytest.raises(Fault) as fault:
        become(row | {"preference_strength": -4}, columns=graded_column, preference_values=graded)
    assert_names(fault.value, "preference is -4", "not in data.preference_values")


def test_settings_can_ignore_the_scores_of_a_pair() -> None:
    row = {"prompt": "It", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 2}
    ignored = {"chosen_score": None, "rejected_score": None}
    assert become(row, columns=ignored) == Ranked("It", [" a", " b"], [1, 0])


AB = {"prompt": "It", "response_a": "a", "response_b": "b"}


@pytest.mark.parametrize(
    ("row", "parts", "columns", "record"),
    [
        (
            {"instruction": "It", "question": "Is", "output": "a", "label": 1},
            ["instruction, question", "data.columns: {prompt: instruction}"],
            {"prompt": "question"},
            Labelled("Is", " a", 1),
        ),
        (
            {"text": "A film", "label": 0, "sentiment": "positive"},
            ["label, sentiment", "data.columns: {label: label}"],
            {"label": "sentiment"},
            Labelled("", "A film", 1),
        ),
        (
            AB | {"chosen": "a", "rejected": "b"},
            ["vote", "response_a", "response_b", "data.columns: {chosen: chosen} or {preference: chosen}"],
            {"preference": "chosen"},
            Ranked("It", [" a", " b"], [1, 0]),
        ),
        (
            AB | {"chosen": "b", "rejected": "c"},
            ["chosen", "vote", "response_a", "response_b"],
            {"chosen": "chosen"},
            Ranked("It", [" b", " c"], [1, 0]),
        ),
        (
            {"prompt": "It", "response_0": "a", "response_1": "b", "response_2": "c", "preference": "b"},
            ["response_1", "data.columns: {response_a: response_0, response_b: response_1}"],
            {"response_a": "response_0", "response_b": "response_1"},
            Ranked("It", [" a", " b"], [-1, 0]),
        ),
    ],
)
def test_a_column_that_can_be_read_in_two_ways_is_refused_unless_data_columns_names_it(
    row: Row, parts: list[str], columns: dict[str, str], record: Record
) -> None:
    with pytest.raises(Fault) as fault:
        recognise(row, ALL, Meanings(settings(), "data.source"))
    assert_names(fault.value, *parts)
    assert become(row, columns=columns) == record


def test_a_column_in_data_columns_decides_between_two_shapes() -> None:
    row = {"prompt": "It", "chosen": "a", "rejected": "b", "text": "A film", "label": 1}
    assert isinstance(become(row), Ranked)
    assert isinstance(become(row, columns={"text": "text"}), Labelled)


def test_plain_texts_and_prompts() -> None:
    assert become({"text": "A\nfilm", "label": 1}, ("plain",)) == Plain("A film")
    assert become({"messages": [user("Hi"), assistant("So.")]}, ("plain",)) == Plain("\n\nHuman: Hi\n\nAssistant: So.")
    for row in ({"prompt": TALK}, {"chosen": TALK + " So."}, {"messages": [user("Hi"), assistant("Yes?"), user("Why?")]}):
        assert become(row, ("prompts",)) == Plain(TALK)
    assert become({"text": "The film was "}, ("prompts",)) == Plain("The film was")


def test_letters_of_every_script_are_kept() -> None:
    text = "הסרט היה נפלא 🎬👨‍👩‍👧 والفيلم رائع"
    assert become({"text": text, "label": 1}) == Labelled("", text, 1)
    assert become({"prompt": text, "chosen": "א", "rejected": "ב"}) == Ranked(text, [" א", " ב"], [1, 0])


def test_columns_of_no_shape_are_none() -> None:
    assert recognise(["said"], ALL, Meanings(settings(), "data.source")) is None
    assert recognise(["text"], ALL, Meanings(settings(), "data.source")) is None


@pytest.mark.parametrize(
    ("better", "worse"), [("positive", "negative"), ("preferred", "dispreferred"), ("response_chosen", "response_rejected")]
)
def test_the_two_sides_of_a_pair_have_usual_names(better: str, worse: str) -> None:
    pair = {"prompt": "The film was", better: " good", worse: " bad"}
    assert become(pair) == Ranked("The film was", [" good", " bad"], [1, 0])
    scored = {"text": "A good film.", "label": 1, better: 0.9, worse: 0.1}
    assert become(scored) == Labelled("", "A good film.", 1), "the names are known only where nothing else fits"
    assert become({"prompt": "x", "chosen": " a", "rejected": " b", better: 0.9, worse: 0.1}) == Ranked(
        "x", [" a", " b"], [1, 0]
    )
    assert recognise({"prompt": "x", better: " good"}, ALL, Meanings(settings(), "data.source")) is None
    with pytest.raises(Fault) as error:
        become({"prompt": "x", "positive": " a", "preferred": " b", "negative": " c"})
    assert_names(error.value, "positive", "preferred", "data.columns: {chosen: ")
