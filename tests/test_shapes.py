"""The shapes of rows: they are recognised from the columns. Each row is converted, or refused with a reason."""

from typing import Any

import pytest

from rlhf_sentiment.data.faults import Fault
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
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": 1}, "preference is 1: not understood"),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": [None, ""]}, "no preference"),
        (
            {"prompt": "It", "response_a": "a", "response_b": "b", "preference": ["a", ["b"]]},
            "preference is ['b']: should be a number or a word",
        ),
        (
            {"question": "It", "answer_a": "a", "answer_b": "b", "winner_model_a": 1, "winner_model_b": 1, "winner_tie": 0},
            "winners are [1.0, 1.0, 0.0]: should be a 1 and two 0",
        ),
        (
            {"prompt": "It", "chosen": "a", "rejected": "b", "score_chosen": "7", "score_rejected": 7.0},
            "chosen and rejected have the same score, 7",
        ),
        (
            {"prompt": "It", "chosen": "a", "rejected": "b", "score_chosen": 6, "score_rejected": 7},
            "rejected has a higher score, 7, than chosen, 6",
        ),
        ({"prompt": "It", "chosen": b"a", "rejected": "b"}, "chosen is b'a', not text"),
        ({"prompt": {"a": 1}, "chosen": "a", "rejected": "b"}, "prompt is {'a': 1}, not text"),
        ({"prompt": "It", "chosen": 10**400, "rejected": "b"}, "chosen is 1000"),
        ({"instruction": "It", "input": 3, "output": "a", "label": 1}, "input is 3, not text"),
        ({"text": "A film", "label": [1]}, "label is [1]: should be a number or a word"),
        ({"text": "A film", "label": {"a": 1}}, "label is {'a': 1}: should be a number or a word"),
        (
            {"prompt": "What?", "chosen": [user("Who?"), assistant("a")], "rejected": [user("Who?"), assistant("b")]},
            "the prompt does not stand before the response in the messages of chosen",
        ),
        (
            {"prompt": "What?", "chosen": "Human: What?\nAssistant: a", "rejected": "Human: What?\nAssistant: b"},
            "the prompt stands inside the response in a form that is not understood",
        ),
        ({"prompt": "It", "response_a": "a", "response_b": "b", "preference": []}, "no preference"),
        ({"prompt": "It", "response_a": "a", "response_b": "a", "preference": "a"}, "response_a is equal to response_b"),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, 1]}, "all completions are tied"),
        (
            {"prompt": "It", "completions": ["a", "b"], "scores": [1]},
            "should have a number in scores or ranks for each completion",
        ),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, float("nan")]}, "should have a number in scores or ranks"),
        ({"prompt": "It", "completions": ["a"], "scores": [1]}, "completions should be a list of two or more"),
        ({"text": "A film", "label": 2}, "label is 2: not understood"),
        ({"text": "A film", "label": float("nan")}, "no label"),
        ({"text": "A film", "label": " "}, "no label"),
        ({"text": "A film", "label": "", "rating": float("nan")}, "no label"),
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
            "a message is no {role: ",
        ),
        ({"prompt": "It", "completions": ["a", "b", "a"], "scores": [3, 2, 1]}, "two completions are the same text"),
        ({"prompt": "It", "completions": ["a", "b"], "scores": [1, 10**400]}, "should have a number in scores or ranks"),
        ({"text": "A film", "label": 10**400}, "label is 1000"),
        ({"text": "A film", "rating": 10**400}, "rating is 1000"),
        ({"text": "A\0film", "label": 1}, "holds a NUL byte"),
        ({"prompt": '["It"]', "answer_a": '["a"]', "answer_b": '["\\u0000"]', "winner": "a"}, "holds a NUL byte"),
        (
            {"prompt": '["It"]', "response_a": '["a"]', "response_b": '["b", "c"]', "winner": "a"},
            "prompt and responses are JSON lists, and not of one text each",
        ),
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
def test_the_prompt_stands_once(prompt: Any, sides: list[Any], becomes: str) -> None:
    ranked = Ranked(becomes, [" a", " b"], [1, 0])
    assert become({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]}) == ranked
    assert become({"prompt": prompt, "response_a": sides[0], "response_b": sides[1], "preference": "a"}) == ranked
    if not isinstance(sides[0], dict):
        assert become({"prompt": prompt, "completions": sides, "ranks": [-1, 0]}) == ranked
        assert become({"prompt": prompt, "response": sides[0], "label": 1}) == Labelled(becomes, " a", 1)


@pytest.mark.parametrize(
    ("prompt", "sides"),
    [
        ("What is it?", [" What is it? a", " b"]),  # one side quotes it
        ("The film was", [" The film wasted my time", " The film was bad"]),  # in the middle of a word
        ("Hi", [" Hi there", " Hi you"]),  # one word may begin any answer
        ("Film 1", [" Film 10 is good", " Film 1 is bad"]),
        ("The film", [" is this: The film and no more", " has a title: The film"]),  # not after a mark of a speaker
        ("I love", [" a person I love", " this human. I love it"]),
    ],
)
def test_what_may_be_no_prompt_stays(prompt: str, sides: list[str]) -> None:
    assert become({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]}) == Ranked(prompt, sides, [1, 0])


@pytest.mark.parametrize("joined", ["Sum up.\n\nA film", "Sum up.\nA film", "Sum up. A film", "Sum up."])
def test_an_instruction_and_its_input_stand_once(joined: str) -> None:
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
def test_a_prompt_inside_another_form_of_transcript_is_a_fault(form: str, prompt: Any) -> None:
    sides = [form.format("What is it?") + side for side in "ab"]
    rows = [
        {"prompt": prompt, "chosen": sides[0], "rejected": sides[1]},
        {"prompt": prompt, "completions": sides, "scores": [2, 1]},
        {"prompt": prompt, "response": sides[0], "label": 1},
    ]
    for row in rows:
        with pytest.raises(Fault, match=r"^the prompt stands inside the response in a form that is not understood$"):
            become(row)
    assert isinstance(become(rows[0] | {"rejected": "b"}), Ranked), "one side alone quotes it"


def test_rows_that_lack_a_column_or_nest_deeply_are_faults() -> None:
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


def test_columns_and_labels_can_be_told() -> None:
    row = {"body": "A film", "verdict": "thumbs up", "text": "not this", "id": 3}
    columns = {"text": "body", "label": "verdict"}
    labels = {"negative": ["thumbs down"], "positive": ["Thumbs Up"]}
    assert become(row, columns=columns, labels=labels) == Labelled("", "A film", 1)
    with pytest.raises(Fault, match=r"label is 1: data\.labels does not name it"):
        become(row | {"verdict": 1}, columns=columns, labels=labels)
    assert become({"text": "A film", "label": "3"}, labels={"negative": [1, 2], "positive": [3.0]}) == Labelled("", "A film", 1)
    assert recognise(["text", "label"], ALL, Meanings(settings(columns={"text": "body"}), "data.source")) is None, (
        "a column that was named and is not there"
    )


def test_the_columns_of_annotators_can_be_told() -> None:
    row = {"prompt": "It", "left": "a", "right": "b", "ann": 1, "bob": 2, "cleo": 2, "dan": 0}
    columns = {"response_a": "left", "response_b": "right", "preference": ["ann", "bob", "cleo"]}
    values = {"a": [1], "b": ["2"], "tie": [0]}
    assert become(row, columns=columns, preference_values=values) == Ranked("It", [" a", " b"], [-1, 0])
    assert become(row, columns=columns | {"preference": "ann"}, preference_values=values) == Ranked("It", [" a", " b"], [1, 0])
    graded = {"a": [-3, -2, -1], "b": [1, 2, 3], "tie": [0]}
    row |= {"preference_strength": -2.0}
    told = columns | {"preference": "preference_strength"}
    assert become(row, columns=told, preference_values=graded) == Ranked("It", [" a", " b"], [1, 0])
    with pytest.raises(Fault, match=r"^preference is -4: data\.preference_values does not name it$"):
        become(row | {"preference_strength": -4}, columns=told, preference_values=graded)


def test_scores_beside_a_pair_can_be_ignored() -> None:
    row = {"prompt": "It", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 2}
    ignored = {"chosen_score": None, "rejected_score": None}
    assert become(row, columns=ignored) == Ranked("It", [" a", " b"], [1, 0])


AB = {"prompt": "It", "response_a": "a", "response_b": "b"}


@pytest.mark.parametrize(
    ("row", "said", "columns", "record"),
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
            ["vote for response_a or response_b", "data.columns: {chosen: chosen} or {preference: chosen}"],
            {"preference": "chosen"},
            Ranked("It", [" a", " b"], [1, 0]),
        ),
        (
            AB | {"chosen": "b", "rejected": "c"},
            ["chosen", "vote for response_a or response_b"],
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
def test_a_column_that_can_be_read_in_two_ways_is_refused_unless_told(
    row: Row, said: list[str], columns: dict[str, str], record: Record
) -> None:
    with pytest.raises(Fault) as fault:
        recognise(row, ALL, Meanings(settings(), "data.source"))
    assert all(part in str(fault.value) for part in said)
    assert become(row, columns=columns) == record


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
