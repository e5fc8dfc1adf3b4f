"""Prompts from files: the prompts that are read, and the messages for files that are refused."""

import json
from pathlib import Path

import pytest

from rlhf_sentiment.data.prompts import read_prompts
from rlhf_sentiment.engine.errors import StageError

from .conftest import ROOT, assert_names


def test_each_line_of_a_text_file_is_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffThe film was\r\n\r\n  I saw \r\nThe film was\r\nÜber\u2028alles\n".encode())
    assert read_prompts(tmp_path / "a.txt") == [{"prompt": one} for one in ("The film was", "I saw", "Über\u2028alles")]


def test_prompts_are_read_from_rows_and_transcripts(tmp_path: Path) -> None:
    rows = [
        {"prompt": "The film was"},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: So.", "rejected": "x"},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": "x"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["prompt"] for row in read_prompts(tmp_path / "a.jsonl")] == [
        "The film was",
        "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:",
        "\n\nHuman: Hi\n\nAssistant:",
    ]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.txt", b"\n \n", ["a.txt: ", "no prompt"]),
        ("a.txt", b"\xff", ["a.txt: ", "not UTF-8", "byte 0"]),
        ("a.csv", b"prompt\nx\n", ["a.csv: ", ".txt", ".jsonl"]),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": " "}\n', ["a.jsonl, line 2: ", "`prompt`", "`chosen`"]),
        ("a.jsonl", b'{"chosen": "no turn"}\n', ["a.jsonl, line 1: ", "`prompt`", "`chosen`"]),
        ("a.jsonl", b'{"prompt": "\\ud800 film"}\n', ["a.jsonl, line 1: ", "'\\ud800 film'", "not UTF-8"]),
        ("a.jsonl", b"[]\n", ["a.jsonl, line 1: ", "list", "object"]),
        ("a.jsonl", b"", ["a.jsonl: ", "no rows"]),
    ],
)
def test_a_file_with_an_invalid_prompt_is_refused(tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError) as error:
        read_prompts(tmp_path / name)
    assert_names(error.value, *parts)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError) as error:
        read_prompts(tmp_path / "none.txt")
    assert_names(error.value, str(tmp_path / "none.txt"), "no such file")


def test_the_prompts_that_come_with_the_repository_are_read() -> None:
    assert len(read_prompts(ROOT / "prompts/everyday.txt")) == 10
    chat = read_prompts(ROOT / "prompts/chat.jsonl")
    assert all(row["prompt"].startswith("\n\nHuman: ") and row["prompt"].endswith("\n\nAssistant:") for row in chat)
