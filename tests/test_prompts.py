"""Prompts from files: the prompts that are read, and the messages for files that are refused."""

import json
from pathlib import Path

import pytest

from rlhf_sentiment.data.prompts import read_prompts
from rlhf_sentiment.engine.errors import StageError

from .conftest import ROOT


def test_each_line_of_a_text_file_is_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffThe film was\r\n\r\n  I saw \r\nThe film was\r\nÜber\u2028alles\n".encode())
    assert read_prompts(tmp_path / "a.txt") == ["The film was", "I saw", "Über\u2028alles"]


def test_prompts_are_read_from_rows_and_transcripts(tmp_path: Path) -> None:
    rows = [
        {"prompt": "The film was"},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: So.", "rejected": "x"},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": "x"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_prompts(tmp_path / "a.jsonl") == [
        "The film was",
        "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:",
        "\n\nHuman: Hi\n\nAssistant:",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\n \n", "a.txt: contains no prompt"),
        ("a.txt", b"\xff", "a.txt: not UTF-8: invalid start byte at byte 0"),
        ("a.csv", b"prompt\nx\n", "a.csv: should be a .txt file"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": " "}\n', "a.jsonl, line 2: should have `prompt`"),
        ("a.jsonl", b'{"chosen": "no turn"}\n', "a.jsonl, line 1: should have `prompt`"),
        ("a.jsonl", b'{"prompt": "\\ud800 film"}\n', "a.jsonl, line 1: '\\ud800 film' is not UTF-8"),
        ("a.jsonl", b"[]\n", "a.jsonl, line 1: holds list, not an object"),
        ("a.jsonl", b"", "a.jsonl: holds no rows"),
    ],
)
def test_a_file_with_an_invalid_prompt_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError) as error:
        read_prompts(tmp_path / name)
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"none\.txt: no such file of prompts"):
        read_prompts(tmp_path / "none.txt")


def test_the_prompts_that_come_with_the_repository_are_read() -> None:
    assert len(read_prompts(ROOT / "prompts/everyday.txt")) == 10
    chat = read_prompts(ROOT / "prompts/chat.jsonl")
    assert all(prompt.startswith("\n\nHuman: ") and prompt.endswith("\n\nAssistant:") for prompt in chat)
