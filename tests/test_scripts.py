"""Scripts without spaces between words: reviews in Chinese, Thai and Japanese pass through all stages."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rlhf_sentiment.data.near_duplicates import shingles
from rlhf_sentiment.data.text import words

from .conftest import RunStage, World, checkout, tiny_params

# The number of letters of a prompt: about two or three words.
PROMPT = {"Chinese": 6, "Thai": 16, "Japanese": 11}
# Subjects, adverbs, positive words, negative words, and the end of a clause.
LANGUAGES = {
    "Chinese": (
        ("导演", "演员", "音乐", "结局", "这部电影", "这个故事", "Titanic"),
        ("非常", "特别", "有点", "真的", "比较", "格外"),
        ("精彩", "好看", "有趣", "感人", "动听", "细腻"),
        ("无聊", "难看", "糟糕", "失望", "拖沓", "生硬"),
        ("，", "。", "！", "；"),
    ),
    "Thai": (
        ("หนังเรื่องนี้", "นักแสดง", "ผู้กำกับ", "ดนตรี", "ตอนจบ", "บทหนัง"),
        ("ค่อนข้าง", "ดูแล้ว", "โดยรวม", "จริงๆ", "ถือว่า", "ช่าง"),
        ("สนุกมาก", "ยอดเยี่ยม", "น่าประทับใจ", "ซาบซึ้ง", "ไพเราะ", "ดีเลิศ"),
        ("น่าเบื่อ", "แย่มาก", "น่าผิดหวัง", "จืดชืด", "ห่วยแตก", "ยืดเยื้อ"),
        (" ", "", "ๆ ", "!"),
    ),
    "Japanese": (
        ("この映画は", "監督は", "俳優は", "音楽は", "ラストは", "ストーリーは"),
        ("とても", "本当に", "かなり", "なんだか", "ずっと", "意外と"),
        ("面白い", "素晴らしい", "感動的だ", "楽しい", "美しい", "見事だ"),
        ("退屈だ", "ひどい", "残念だ", "つまらない", "雑だ", "平凡だ"),
        ("。", "、", "！", "…"),
    ),
}


def write_reviews(file: Path, language: str, count: int) -> None:
    """Write labelled reviews of eight clauses without spaces. Every tenth is a near-duplicate of the previous review."""
    subjects, adverbs, praise, blame, ends = LANGUAGES[language]
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        label = len(rows) // 2 % 2
        clauses = ["".join(map(rng.choice, (subjects, adverbs, praise if label else blame, ends))) for _ in range(8)]
        rows.append({"text": "".join(clauses), "label": label})
        if len(rows) % 10 == 9:
            rows.append({"text": rows[-1]["text"] + "".join(clauses[:1]), "label": label})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def world_of(folder: Path, language: str) -> World:
    params = tiny_params()
    sizes = {
        "corpus_texts": 200,
        "sft_rows": 40,
        "pairs": 60,
        "pairs_held_out": 10,
        "labelled_texts": 160,
        "labelled_held_out": 30,
    }
    params["data"] |= sizes | {
        "source": "data/raw/reviews.jsonl",
        "prompts_train": 60,
        "prompts_validation": 8,
        "prompts_test": 20,
    }
    params["data"] |= {"max_uses": 2, "prompt_words": PROMPT[language]}
    world = checkout(folder, params)
    write_reviews(world / "data/raw/reviews.jsonl", language, 800)
    return world


@pytest.mark.parametrize("language", LANGUAGES)
def test_reviews_without_spaces_are_prepared_and_judged(tmp_path: Path, run_stage: RunStage, language: str) -> None:
    world = world_of(tmp_path / "repository", language)
    for stage in ("check", "hashes", "prepare", "judge"):
        run_stage(world, stage)
    tables = {
        name: [json.loads(line) for line in (world / f"data/prepared/{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("prompts", "preferences", "labelled", "rejected", "sft")
    }
    source = (world / "data/raw/reviews.jsonl").read_text(encoding="utf-8")
    assert {len(words(row["prompt"])) for row in tables["prompts"]} == {PROMPT[language]}
    assert all(f'"{row["prompt"]}' in source for row in tables["prompts"]), "prompts are unchanged parts of the source"
    assert all(f'"{row["prompt"]}{row["response"]}' in source for row in tables["sft"])
    assert tables["rejected"] == []

    figures = json.loads((world / "reports/data.json").read_text())
    assert figures["dropped"]["corpus"] > 0, "near-duplicates are found"
    assert figures["dropped_unsure"] == 0
    assert figures["pairs"]["length_ratio"] < 1.2
    assert figures["pairs"]["shared_opening"] > 10
    held_out = [shingles(row["text"]) for row in tables["labelled"] if row["split"] == "test"]
    for row in tables["labelled"]:
        if row["split"] == "train":
            mine = shingles(row["text"])
            assert all(len(mine & other) / len(mine | other) < 0.6 for other in held_out)

    judge = json.loads((world / "reports/judge.json").read_text())["classifier"]
    assert judge["accuracy"] > 0.9
    assert judge["accuracy_cut"] > 0.8
