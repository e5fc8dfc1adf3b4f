"""Folders with one subfolder of texts for each class, as in archives of reviews."""

import gzip
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

import prepare as stage
from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.formats import too_long
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.settings.data import DataSettings

from .conftest import ROOT, SHARED, World, assert_names, prepare_params, tiny_params, write_reviews
from .test_files import read, settings, zipped
from .test_sources import SMALL


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder data/raw in a new current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path / "data/raw"


def put(files: dict[str, str | bytes], folder: str = "data/raw/made") -> None:
    """Write files below a folder, from their names and contents."""
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def placed(source: str, **changes: Any) -> list[Any]:
    """Return each row with its place in the file."""
    return [row for file in files_at(source, "data.source") for row in file.rows(settings(**changes))]


BESIDE: dict[str, str | bytes] = {
    "README": "About the archive.",
    "imdb.vocab": "the\nand\n",
    "imdbEr.txt": "0.1\n",
    ".DS_Store": b"\0\1",
    "__MACOSX/train/pos/._0_9.txt": b"\0\1",
    "train/labeledBow.feat": "9 0:9\n",
    "train/urls_pos.txt": "http://www.imdb.com/title/tt0453418/usercomments\n",
    "train/pos/.DS_Store": b"\0\1",
    "train/pos/README.txt": "About positive ones.",
    "train/unsup/0_0.txt": "A text without a label.",
    "train/unsup/1_0.txt": "Another text without a label.",
}


def test_the_unpacked_archive_of_reviews_is_read(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put({"train/pos/1_9.txt": "Good.\nIt is.", "train/pos/0_10.txt": "\ufeffBest.", "train/neg/0_3.txt": "Bad.", **BESIDE})
    put({"test/neg/0_2.txt": "Dull.", "test/pos/7_7.txt": "Nice."})
    assert [(file.name, file.split) for file in files_at("data/raw/made", "data.source")] == [
        ("data/raw/made/train", "train"),
        ("data/raw/made/test", "test"),
    ]
    (left,) = capsys.readouterr().err.splitlines()
    assert_names(left, "data/raw/made/train: left out", "unsup/ (2 texts", "data.corpus", "urls_pos.txt")
    assert placed("data/raw/made") == [
        ("neg/0_3.txt", {"text": "Bad.", "label": "neg", "rating": 3}),
        ("pos/0_10.txt", {"text": "Best.", "label": "pos", "rating": 10}),
        ("pos/1_9.txt", {"text": "Good.\nIt is.", "label": "pos", "rating": 9}),
        ("neg/0_2.txt", {"text": "Dull.", "label": "neg", "rating": 2}),
        ("pos/7_7.txt", {"text": "Nice.", "label": "pos", "rating": 7}),
    ]
    assert read("data/raw/made/train/unsup", "data.corpus") == [
        {"text": "A text without a label."},
        {"text": "Another text without a label."},
    ]


def test_folders_of_classes_may_have_any_names(raw: Path) -> None:
    put(
        {
            "good/a.TXT": "Good.",
            "bad/b.txt.gz": zipped("Dull, né.".encode()),
            "bad/c.txt": "",
            "bad/long.txt": "a" * (2**20 + 1),
        }
    )
    (raw / "made/good/linked.txt").symlink_to(raw / "made/good/a.TXT")
    (raw / "link").symlink_to(raw / "made")
    reason = f"a text {too_long(settings(max_characters=1000))}"
    assert placed("data/raw/link", max_characters=1000) == [
        ("bad/b.txt.gz", {"text": "Dull, né.", "label": "bad"}),
        ("bad/c.txt", {"text": "", "label": "bad"}),
        ("bad/long.txt", reason),
        ("good/a.TXT", {"text": "Good.", "label": "good"}),
        ("good/linked.txt", {"text": "Good.", "label": "good"}),
    ]


TWO: dict[str, str | bytes] = {"pos/1.txt": "a", "neg/1.txt": "b"}
BELOW: dict[str, str | bytes] = {f"train/{name}": text for name, text in TWO.items()}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (TWO | {"train.jsonl": "{}"}, ["made contains train.jsonl and folders", "keep one"]),
        (TWO | {"more.csv": "text,label"}, ["made contains more.csv and folders", "keep one"]),
        (TWO | {"neg/more.jsonl": "{}"}, ["made/neg contains more.jsonl and folders", "keep one"]),
        (TWO | BELOW, ["made contains train/ and neg/", "both with texts"]),
        (
            BELOW | {"dev/a/1.txt": "c", "dev/b/1.txt": "c", "valid/a/1.txt": "c", "valid/b/1.txt": "d"},
            ["made contains dev/ and valid/", "keep one"],
        ),
        (BELOW | {"test/1.txt": "c"}, ["made/test contains no classes"]),
        ({"pos/1.txt": "a"}, ["made contains only one class", "(pos/)"]),
        ({"pos/1.txt": "a", "unsup/1.txt": "a"}, ["made contains only one class", "(pos/)"]),
        (
            BELOW | {"holdout/pos/1.txt": "c", "holdout/neg/1.txt": "d"},
            ["made/holdout contains classes", "not a split"],
        ),
        (TWO | {"unseen/pos/1.txt": "c", "unseen/neg/1.txt": "d"}, ["made/unseen contains classes", "not a split"]),
        (TWO | {"neg/deep/2.txt": "c"}, ["made/neg/deep is a folder", "class"]),
        ({"pos/x/1.txt": "a", "neg/x/1.txt": "b"}, ["made contains no train.*"]),
        ({f"test/{name}": text for name, text in TWO.items()}, ["made contains no train.*"]),
        ({"train/1.txt": "a", "train/2.txt": "a"}, ["made/train ", "no folder of texts for each class"]),
        ({"1.txt": "a", "2.txt": "a"}, ["made contains texts without labels", "data.corpus"]),
        (
            TWO | {"neg/2.txt": "Café".encode("latin-1")},
            ["made/neg/2.txt, line 1", "not UTF-8", "0xe9", "column 4"],
        ),
        (TWO | {"neg/2.txt": b"a\nb\n\xff"}, ["made/neg/2.txt, line 3", "not UTF-8", "0xff", "column 1"]),
        (TWO | {"neg/2.txt.gz": gzip.compress(b"b" * 999)[:-9]}, ["made/neg/2.txt.gz", "cannot be read", "incomplete"]),
        (TWO | {os.fsdecode(b"neg/caf\xe9.txt"): "b"}, [r"caf\udce9.txt", "cannot be printed"]),
    ],
)
def test_ambiguous_or_damaged_folders_are_refused(files: dict[str, str | bytes], parts: list[str]) -> None:
    put(files)
    with pytest.raises(StageError) as error:
        read("data/raw/made")
    assert_names(error.value, *parts)
    assert len(str(error.value).splitlines()) == 1


def test_files_of_a_class_that_are_not_texts_are_counted(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(TWO | {"pos/2.text": "c", "pos/3": "d", "pos/README": "e", "pos/.hidden": "f", "mixed/1.text": "g", "empty/.x": ""})
    assert len(read("data/raw/made")) == 2
    (left,) = capsys.readouterr().err.splitlines()
    assert_names(left, "data/raw/made: left out", "1 files in mixed/", "2 files in pos/")
    assert "empty" not in left


def test_folders_may_have_usual_names_of_splits(raw: Path) -> None:
    for folder in ("training", "Val", "testing"):
        put({f"{folder}/{name}": text for name, text in TWO.items()})
    assert [(Path(file.name).name, file.split) for file in files_at("data/raw/made", "data.source")] == [
        ("training", "train"),
        ("Val", "validation"),
        ("testing", "test"),
    ]


def test_a_link_to_a_missing_file_is_refused(raw: Path) -> None:
    put(TWO)
    (raw / "made/neg/9.txt").symlink_to("/none")
    with pytest.raises(StageError) as error:
        read("data/raw/made")
    assert_names(error.value, "data/raw/made/neg/9.txt", "cannot be read", "link")


def test_columns_by_number_of_folders_are_refused(raw: Path) -> None:
    put(TWO)
    with pytest.raises(StageError) as error:
        read("data/raw/made", columns={"text": 1})
    assert_names(error.value, "data/raw/made: ", "data.columns", "numbers")


def archive(folder: Path, labels: tuple[str, str] = ("neg", "pos"), empty: str = "") -> None:
    """Write reviews of the grammar in the layout of the archive aclImdb."""
    write_reviews(folder / "rows", train=400, test=80)
    for split in ("train", "test"):
        for number, line in enumerate((folder / f"rows/{split}.jsonl").open()):
            row = json.loads(line)
            put(
                {f"{split}/{labels[row['label']]}/{number}_{(2, 9)[row['label']]}.txt": row["text"] + "\n"},
                str(folder / "aclImdb"),
            )
    put(BESIDE, str(folder / "aclImdb"))


def prepared(**changes: Any) -> stage.Prepared:
    data = DataSettings(**(tiny_params()["data"] | SMALL | {"prompts_validation": 2} | changes))
    return stage.prepare(prepare_params(data))


def test_folders_of_texts_give_tables_with_the_labels_of_the_folders(raw: Path) -> None:
    archive(raw)
    put({"train/pos/empty_8.txt": ""}, "data/raw/aclImdb")
    made = prepared(source="data/raw/aclImdb", corpus="data/raw/aclImdb/train/unsup", corpus_texts=1)
    names = ("rows_read", "rows_kept", "rows_rejected", "duplicates_dropped", "overlap_dropped")
    assert made.figures["files"]["aclImdb/train"] == dict(zip(names, (401, 400, 1, 0, 0), strict=True))
    assert list(made.figures["files"]) == ["aclImdb/train", "aclImdb/test", "aclImdb/train/unsup"], "one for each split"
    assert made.dropped == [{"file": "data/raw/aclImdb/train", "row": "pos/empty_8.txt", "reason": "no text"}]
    known = {json.loads(line)["text"]: json.loads(line)["label"] for line in (raw / "rows/train.jsonl").open()}
    assert {known.get(row["text"], row["label"]) == row["label"] for row in made.tables["labelled"]} == {True}


def test_the_folder_is_the_label_unless_data_columns_sets_label_to_null(raw: Path) -> None:
    archive(raw, labels=("thumbs down", "thumbs up"))
    labels = {"negative": ["thumbs down"], "positive": ["thumbs up"]}
    by_folder = prepared(source="data/raw/aclImdb", labels=labels)
    swapped = prepared(source="data/raw/aclImdb", labels={"negative": ["thumbs up"], "positive": ["thumbs down"]})
    by_rating = prepared(source="data/raw/aclImdb", columns={"label": None})
    assert by_folder.tables == by_rating.tables != swapped.tables


def test_the_commands_of_make_local_data_prepare_an_archive(raw: Path) -> None:
    """The commands of the message work with an archive of the same layout."""
    folder = raw.parents[1]
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    said = World(folder).run("make", "local-data", "SHARED=/none", status=2)
    assert "tar -C data/raw -xf aclImdb_v1.tar.gz" in said
    assert "data.source: data/raw/aclImdb" in said
    archive(folder / "made")
    with tarfile.open("aclImdb_v1.tar.gz", "w:gz") as packed:
        packed.add(folder / "made/aclImdb", "aclImdb")
    World(folder).run("tar", "-C", "data/raw", "-xf", "aclImdb_v1.tar.gz")
    assert prepared(source="data/raw/aclImdb").figures["files"]["aclImdb/test"]["rows_kept"] == 80


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the cases of ../shared (or RLHF_SHARED)")
def test_the_shared_folder_is_read(raw: Path) -> None:
    (raw / "case").symlink_to(SHARED / "cases/15-folders")
    rows = read("data/raw/case")
    assert [row["label"] for row in rows] == ["neg"] * 30 + ["pos"] * 30
    assert rows[0]["text"] == (SHARED / "cases/15-folders/neg/000.txt").read_text()
