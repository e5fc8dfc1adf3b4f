"""The sources with labelled texts, such as film reviews: from `text` and `label` to every table.

A data set's own test split stays the test split. The rest is halved by a hash of the text: one half is the judge's
alone; of the other come corpus, demonstrations, preference pairs and prompts, a tenth of it being validation. Which
texts are taken where fewer are asked for is decided by hashes too: a new text takes at most one place in a table, and
no other text moves to another split. (It may give the texts of pairs other partners; and what opens as a new test
prompt, or nearly equals a new text that it must not meet, leaves.)

Each row of a file has one fate: kept, rejected (no text, no label, too short), a duplicate (the same text earlier in
its split, with the same label or the other), or an overlap (a test text that also stands in train, but for case and
white space).
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import disable_progress_bars, load_dataset, logging

from .records import Prepared, Row
from .run import StageError, require
from .settings.data import DataSettings
from .text import cleaned, near_duplicates, normalised, place_of, split_of


class Review(NamedTuple):
    """A labelled text, split after its first words: `prompt + response` is the text, cleaned; label 1 is positive."""

    prompt: str
    response: str
    label: int
    split: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.prompt + self.response

    def labelled(self, split: str) -> Row:
        """As a row of the judge's."""
        return {"text": self.text, "label": self.label, "split": split}


def prepare(data: DataSettings) -> Prepared:
    """Every table, from the labelled texts of `data.source`.

    Raises:
        StageError: the source cannot be read, has no such columns, or has too few texts.
    """
    reviews, files, rejected = account(read(data.source, data.revision), data)

    # 1. The test split, and the rest: half of it the judge's, half for everything else.
    test = [review for review in reviews if review.split == "test"]
    rest = [review for review in reviews if review.split != "test"]

    # 2. Prompts. No test prompt opens a text of the rest, the judge's half too, and no validation prompt one of training.
    test_prompts = openings(test, data.prompts_test, "prompts_test", data.seed)
    rest = without(rest, test_prompts)
    judges = [review for review in rest if place_of(review.text, "judge/") < 0.5]
    ours = [review for review in rest if place_of(review.text, "judge/") >= 0.5]
    validation = [review for review in ours if review.split == "validation"]
    validation_prompts = openings(validation, data.prompts_validation, "prompts_validation", data.seed)
    train = without([review for review in ours if review.split == "train"], validation_prompts)
    prompts = openings(train, data.prompts_train, "prompts_train", data.seed) + validation_prompts + test_prompts

    # 3. Texts for a base model made from scratch; demonstrations, half of each sentiment.
    corpus: list[Row] = [
        {"text": r.text, "split": r.split} for r in choose(train, data.corpus_texts, "corpus_texts", data.seed)
    ]
    sft: list[Row] = [
        {"prompt": r.prompt, "response": r.response, "label": r.label, "split": r.split}
        for r in balanced(train, data.sft_rows, "sft_rows", data.seed)
    ]

    # 4. Preferences made from labels: a positive text is preferred to a negative one. They share no prompt. Held-out
    #    pairs are of the validation texts, and no text of theirs is nearly one that the reward model learns from.
    learned = pairs(train, data.pairs, "pairs", data)
    held_out = pairs(validation, data.pairs_held_out, "pairs_held_out", data)
    held_out = unlike(held_out, ("chosen", "rejected"), sides(learned), data.near_duplicate)
    preferences = learned + held_out

    # 5. The judge's texts: what it learns from is nearly no text of the pairs, and what measures it is neither nearly one
    #    of those nor one that it learned from.
    lessons = [review.labelled("train") for review in balanced(judges, data.labelled_texts, "labelled_texts", data.seed)]
    exam = [review.labelled("test") for review in balanced(test, data.labelled_held_out, "labelled_held_out", data.seed)]
    lessons = unlike(lessons, ("text",), sides(preferences), data.near_duplicate)
    exam = unlike(exam, ("text",), sides(preferences) + [row["text"] for row in lessons], data.near_duplicate)
    labelled = lessons + exam

    tables = {"corpus": corpus, "sft": sft, "preferences": preferences, "labelled": labelled, "prompts": prompts}
    asked = data.pairs_held_out + data.labelled_texts + data.labelled_held_out
    return Prepared(tables, files, rejected, near_duplicates_dropped=asked - len(held_out) - len(labelled))


# How `datasets` reads a file, by the end of its name.
READERS: dict[str, tuple[str, dict[str, str]]] = {
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".parquet": ("parquet", {}),
}


def read(source: str, revision: str | None) -> dict[str, list[Row]]:
    """The rows of the splits `train` and `test` (others, such as IMDB's unlabelled one on the hub, are not read).

    Raises:
        StageError: there is no such folder or data set, a file is damaged or no part of a split, or a column is missing.
    """
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is said once, below
    if source.startswith("data/raw/"):
        splits = {name: read_file(path) for name, path in files_of(Path(source)).items()}
    else:
        try:
            found = load_dataset(source, revision=revision)
            splits = {name: list(found[name]) for name in ("train", "test") if name in found}
        except Exception as error:  # whatever stands between us and the hub
            raise StageError(f"data.source {source} cannot be read: {cause_of(error)}") from None
        if "train" not in splits:
            raise StageError(f"data.source {source} has no split train, only {', '.join(found)}")
    for name, rows in splits.items():
        absent = [column for column in ("text", "label") if not rows or column not in rows[0]]
        if absent:
            raise StageError(f"{source}, {name}: lacks {', '.join(absent)}; it has {', '.join(rows[0]) if rows else 'no rows'}")
    return splits


def files_of(folder: Path) -> dict[str, Path]:
    """The file of each split: train.* and, where there is one, test.*.

    Raises:
        StageError: no train.*, two files of one split, or a data file of neither, which would otherwise go unread in silence.
    """
    require(folder)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        plain = Path(path.name.removesuffix(".gz"))
        name, ending = plain.stem, plain.suffix
        if ending not in READERS:
            continue
        if name not in ("train", "test") or not path.is_file():
            raise StageError(f"{path} is no file train.* or test.*; rename it, or move it out of {folder}")
        if name in files:
            raise StageError(f"{folder} holds {files[name].name} and {path.name}; keep one of them")
        files[name] = path
    if "train" not in files:
        raise StageError(f"{folder} holds no train.* ({', '.join(READERS)}, also .gz)")
    return {name: files[name] for name in ("train", "test") if name in files}


def read_file(path: Path) -> list[Row]:
    """The rows of one file."""
    reader, how = READERS[Path(path.name.removesuffix(".gz")).suffix]
    try:
        # Local files are small and change: nothing of them stays in the cache of `datasets`.
        with tempfile.TemporaryDirectory() as scratch:
            rows = load_dataset(reader, data_files=str(path), split="train", cache_dir=scratch, keep_in_memory=True, **how)
            return list(rows)
    except Exception as error:  # whatever a parser of theirs makes of a file that is none
        raise StageError(f"{path} cannot be read: {cause_of(error)}") from None


def cause_of(error: Exception) -> str:
    """What an error of a library's says, on one line."""
    return " ".join(str(error.__cause__ or error).split())[:300] or "it is empty"


def account(splits: dict[str, list[Row]], data: DataSettings) -> tuple[list[Review], dict[str, dict[str, int]], list[Row]]:
    """The reviews that are kept, the fates of each split's rows counted, and every row that was dropped."""
    reviews: list[Review] = []
    files: dict[str, dict[str, int]] = {}
    dropped: list[Row] = []
    seen: dict[str, tuple[str, int]] = {}  # normalised text -> the file it stands in, and its label there
    for name, rows in splits.items():
        fates: Counter[str] = Counter()
        for number, row in enumerate(rows, start=1):
            fault = fault_of(row, data.prompt_words)
            text = "" if fault else cleaned(row["text"])
            same = normalised(text)
            fate = "kept"
            if fault:
                fate = "rejected"
            elif same in seen:
                fate = "duplicate" if seen[same][0] == name else "overlap"
            fates[fate] += 1
            if fate != "kept":
                other = fate != "rejected" and seen[same][1] != row["label"]
                dropped.append({"file": name, "row": number, "reason": fault or fate + ", with the other label" * other})
                continue
            seen[same] = name, row["label"]
            words = text.split(" ")
            prompt = " ".join(words[: data.prompt_words])
            split = "test" if name == "test" else split_of(text, validation=0.1, test=0.0 if "test" in splits else 0.1)
            reviews.append(Review(prompt, text[len(prompt) :], int(row["label"]), split))
        if fates["rejected"] == len(rows):
            raise StageError(f"{data.source}, {name}: no row can be used; of the first, {dropped[-len(rows)]['reason']}")
        files[name] = {
            "rows_read": len(rows),
            "rows_kept": fates["kept"],
            "rows_rejected": fates["rejected"],
            "duplicates_dropped": fates["duplicate"],
            "overlap_dropped": fates["overlap"],
        }
    return reviews, files, dropped


def fault_of(row: Row, prompt_words: int) -> str | None:
    """Why a row cannot be used; None where it can."""
    if not isinstance(row["text"], str) or not row["text"].strip():
        return "no text"
    if row["label"] not in (0, 1):
        return f"label is {row['label']!r}, not 0 or 1"
    words = len(cleaned(row["text"]).split(" "))
    return f"{words} words, not more than a prompt's {prompt_words}" if words <= prompt_words else None


def choose(reviews: Sequence[Review], count: int, name: str, seed: int, kind: str = "texts") -> list[Review]:
    """`count` of the reviews, in the order of a hash of seed, purpose and text: a new review takes at most one's place.

    Raises:
        StageError: there are fewer.
    """
    if len(reviews) < count:
        raise StageError(f"data.{name} asks for {count} {kind} where the source has {len(reviews)} for it; lower it")
    return sorted(reviews, key=lambda review: place_of(review.text, f"{seed}/{name}/"))[:count]


def balanced(reviews: Sequence[Review], count: int, name: str, seed: int) -> list[Review]:
    """`count` of the reviews, positive and negative in turn."""
    sides = [
        choose([r for r in reviews if r.label == label], count // 2, name, seed, kind)
        for label, kind in ((1, "positive texts"), (0, "negative texts"))
    ]
    return [review for both in zip(*sides, strict=True) for review in both]


def openings(reviews: Sequence[Review], count: int, name: str, seed: int) -> list[Row]:
    """`count` different prompts of the reviews, chosen by their own hash."""
    different = {normalised(review.prompt): review._replace(response="") for review in reversed(reviews)}
    chosen = choose(list(different.values()), count, name, seed, "different openings")
    return [{"prompt": r.prompt, "split": r.split} for r in chosen]


def without(reviews: Sequence[Review], prompts: Sequence[Row]) -> list[Review]:
    """The reviews that open with none of `prompts`."""
    taken = {normalised(row["prompt"]) for row in prompts}
    return [review for review in reviews if normalised(review.prompt) not in taken]


def pairs(reviews: Sequence[Review], count: int, name: str, data: DataSettings) -> list[Row]:
    """`count` pairs of a positive and a negative review, no review in two of them.

    A share `data.disagreement` of them is the wrong way round.
    """
    rows: list[Row] = []
    both: list[Any] = balanced(reviews, 2 * count, name, data.seed)
    for chosen, rejected in zip(both[::2], both[1::2], strict=True):
        if place_of(chosen.text, f"{data.seed}/disagreement/") < data.disagreement:
            chosen, rejected = rejected, chosen
        rows.append({"prompt": "", "chosen": chosen.text, "rejected": rejected.text, "split": chosen.split})
    return rows


def sides(preferences: Sequence[Row]) -> list[str]:
    """The texts of the pairs."""
    return [row[side] for row in preferences for side in ("chosen", "rejected")]


def unlike(rows: list[Row], columns: Sequence[str], of: Sequence[str], threshold: float) -> list[Row]:
    """The rows with no text in `columns` that nearly stands in `of`."""
    near = {number for column in columns for number in near_duplicates([row[column] for row in rows], of, threshold)}
    return [row for number, row in enumerate(rows) if number not in near]
