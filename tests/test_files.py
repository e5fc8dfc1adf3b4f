"""Files that users add: all formats give the same rows, and a damaged file gives a message of one line."""

import csv
import gzip
import io
import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from rlhf_sentiment.data.files import files_at, hub_files
from rlhf_sentiment.data.formats import too_long
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.records import Row
from rlhf_sentiment.settings.data import DataSettings, HubSettings

from .conftest import assert_names, tiny_params

ROWS: list[Row] = [
    {"text": "The film was fine.", "label": "1"},
    {"text": 'He said "dull",\nand left.', "label": "0"},
    {"text": "הסרט 🎬 was None, or NA", "label": "1"},
]


def zipped(content: bytes) -> bytes:
    """Return the gzip of bytes without a time, because the time would be part of the names of tests."""
    return gzip.compress(content, mtime=0)


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder data/raw in a new current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path / "data/raw"


def content(ending: str) -> bytes:
    """Return the bytes of a file with ROWS, in the format of a file ending."""
    if ending == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if ending == "json":
        return json.dumps(ROWS, indent=1).encode()
    if ending == "parquet":
        whole = io.BytesIO()
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), whole)
        return whole.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, ["text", "label"], delimiter="," if ending == "csv" else "\t")
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def flipped(data: bytes) -> bytes:
    """Return the bytes with one bit in the middle flipped."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def parquet(columns: dict[str, Any]) -> bytes:
    whole = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), whole)
    return whole.getvalue()


def zst(plain: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(plain)
    return sink.getvalue().to_pybytes()


def settings(**changes: Any) -> DataSettings:
    return DataSettings(**(tiny_params()["data"] | changes))


def read(source: str, setting: str = "data.source", **changes: Any) -> list[Any]:
    return [row for file in files_at(source, setting) for _, row in file.rows(settings(**changes))]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_all_formats_give_the_same_rows(raw: Path, ending: str, compression: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": zipped, ".zst": zst}
    (raw / f"reviews.{ending}{compression}").write_bytes(pack[compression](content(ending)))
    assert read(f"data/raw/reviews.{ending}{compression}") == ROWS


def test_a_byte_order_mark_and_crlf_line_ends_change_no_row(raw: Path) -> None:
    for ending in ("csv", "jsonl"):
        (raw / f"a.{ending}").write_bytes("\ufeff".encode() + content(ending).replace(b"}\n", b"}\r\n\r\n"))
        assert read(f"data/raw/a.{ending}") == ROWS
    (raw / "lines.json").write_bytes(content("jsonl"))
    assert read("data/raw/lines.json") == ROWS, "a .json file may contain JSON lines"
    (raw / "a.txt").write_text("The film was\n\n I saw\n")
    assert read("data/raw/a.txt") == [{"text": "The film was\n"}, {"text": " I saw\n"}]


TALK = [{"role": "user", "content": "Hi"}]
WRAPPED: dict[str, tuple[Any, list[Any]]] = {
    "rows below a key": ({"version": "1.0", "data": ROWS}, ROWS),
    "rows below the only key": ({"reviews": ROWS}, ROWS),
    "columns as lists": ({name: [row[name] for row in ROWS] for name in ROWS[0]}, ROWS),
    "columns by index": ({name: {str(k): row[name] for k, row in enumerate(ROWS)} for name in ROWS[0]}, ROWS),
    "rows by index": ({str(k): row for k, row in enumerate(ROWS)}, ROWS),
    "one row": (ROWS[0], ROWS[:1]),
    "one conversation": ({"messages": TALK}, [{"messages": TALK}]),
    "messages as a column": ({"messages": [TALK, TALK]}, [{"messages": TALK}, {"messages": TALK}]),
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_json_file_of_one_object_is_read(raw: Path, kind: str, indent: int | None) -> None:
    whole, rows = WRAPPED[kind]
    (raw / "a.json").write_text("\ufeff" + json.dumps(whole, indent=indent, ensure_ascii=False) + "\n\n")
    assert read("data/raw/a.json") == rows


def test_pandas_writes_json_that_is_read(raw: Path) -> None:
    table = pd.DataFrame(ROWS)
    for orient in ("records", "columns", "index", "table"):
        table.to_json(raw / "a.json", orient=orient)
        assert [{name: row[name] for name in ROWS[0]} for row in read("data/raw/a.json")] == ROWS, orient
    table.to_json(raw / "a.json", orient="records", lines=True)
    assert read("data/raw/a.json") == ROWS


@pytest.mark.parametrize(
    ("whole", "parts"),
    [
        ({"text": ["a", "b"], "label": [1]}, ("text 2", "label 1")),
        ({"train": [{"text": "a"}], "test": [{"text": "b"}]}, ("train, test",)),
        ({"columns": ["text", "label"], "index": [0, 1], "data": [["a", 1], ["b", 0]]}, ("columns, index, data",)),
        ({}, ("object",)),
    ],
)
def test_another_object_is_named_for_what_it_is(raw: Path, whole: Row, parts: tuple[str, ...]) -> None:
    (raw / "a.json").write_text(json.dumps(whole, indent=1))
    with pytest.raises(StageError) as error:
        read("data/raw/a.json")
    assert_names(error.value, "data/raw/a.json", *parts)


def test_json_lines_called_json_are_read_line_by_line(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_sentiment.data.formats.LARGEST_WHOLE", 10)
    (raw / "a.json").write_bytes(content("jsonl"))
    assert read("data/raw/a.json") == ROWS
    (raw / "a.json").write_bytes(b'{"text": "' + b"a" * 2**25 + b'"}\n' + content("jsonl"))
    assert read("data/raw/a.json")[1:] == ROWS, "the first line is too long, and is rejected"
    (raw / "a.json").write_text(json.dumps({"data": ROWS}))
    with pytest.raises(StageError) as error:
        read("data/raw/a.json")
    assert_names(error.value, "data/raw/a.json", "10 bytes", ".jsonl")


def test_files_belong_to_splits(raw: Path) -> None:
    (raw / "imdb").mkdir()
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.jsonl", "Dev.jsonl", "training.jsonl"):
        (raw / "imdb" / name).write_bytes(content("jsonl"))
    files = files_at("data/raw/imdb/*.jsonl", "data.source")
    assert [(Path(file.name).name, file.split) for file in files] == [
        ("train-00000-of-00002.jsonl", "train"),
        ("train-00001-of-00002.jsonl", "train"),
        ("training.jsonl", "train"),
        ("Dev.jsonl", "validation"),
        ("test.jsonl", "test"),
    ]
    assert [file.split for file in files_at("data/raw/imdb/test.jsonl", "data.source")] == ["train"], (
        "a single file is for training"
    )


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("val.jsonl", "validation"),
        ("Val-0.jsonl", "validation"),
        ("eval.jsonl", "validation"),
        ("evaluation_1.jsonl", "validation"),
        ("testing.jsonl", "test"),
        ("latest.jsonl", "train"),
        ("contest_devices.jsonl", "train"),
        ("train_test.jsonl", "train"),
    ],
)
def test_names_of_splits_in_a_glob(raw: Path, name: str, split: str) -> None:
    (raw / "g").mkdir()
    for one in ("train.jsonl", name):
        (raw / "g" / one).write_bytes(content("jsonl"))
    assert {Path(file.name).name: file.split for file in files_at("data/raw/g/*.jsonl", "data.source")} == {
        "train.jsonl": "train",
        name: split,
    }


@pytest.mark.parametrize(
    "name",
    [
        *("holdout.jsonl", "holdout_test.jsonl", "held-out.jsonl", "reviews_held_out.jsonl", "HeldOut.jsonl", "unseen-2.jsonl"),
        *("my_test.jsonl", "imdb.val.jsonl", "testData.jsonl", "unlabeledTestData.jsonl", "devset.jsonl", "a-dev_2.jsonl"),
        *("test/part-0.jsonl", "val/a.jsonl"),
    ],
)
def test_a_file_of_a_glob_that_looks_held_out_is_refused(raw: Path, name: str) -> None:
    for one in ("train/a.jsonl", name if "/" in name else f"g/{name}"):
        (raw / "g" / one).parent.mkdir(parents=True, exist_ok=True)
        (raw / "g" / one).write_bytes(content("jsonl"))
    with pytest.raises(StageError) as error:
        files_at("data/raw/g/*/*.jsonl", "data.source")
    base = Path(name).name
    assert_names(error.value, name, "looks held out", f"test-{base}", f"validation-{base}", "data.source")
    if "/" in name:
        assert files_at(f"data/raw/g/{Path(name).parent}/*.jsonl", "data.source")[0].split == "train", (
            "the folder is in the glob"
        )


def test_an_unknown_file_or_subfolder_in_a_folder_of_files_is_refused(raw: Path) -> None:
    (raw / "g").mkdir()
    for name in ("train.jsonl", "val.jsonl"):
        (raw / "g" / name).write_bytes(content("jsonl"))
    assert [file.split for file in files_at("data/raw/g", "data.source")] == ["train", "validation"]
    (raw / "g/holdout.jsonl").write_bytes(content("jsonl"))
    with pytest.raises(StageError) as error:
        files_at("data/raw/g", "data.source")
    assert_names(error.value, "data/raw/g/holdout.jsonl", "not train.*", "call it test.*")
    (raw / "g/holdout.jsonl").unlink()
    (raw / "g/holdout").mkdir()
    with pytest.raises(StageError) as error:
        files_at("data/raw/g", "data.source")
    assert_names(error.value, "data/raw/g/holdout ", "folder", "class")


def spoiled(plain: bytes, line: int, by: bytes) -> bytes:
    lines = plain * 10
    return b"\n".join(by if number == line else one for number, one in enumerate(lines.split(b"\n"), start=1))


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        (
            "a.jsonl",
            spoiled(content("jsonl"), 17, b'{"text": '),
            ["data/raw/a.jsonl, line 17", "not JSON", "column 10"],
        ),
        ("a.json", b'[\n{"text": "a"},\n{"text": b}]', ["data/raw/a.json, line 3", "not JSON", "column 10"]),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, ["data/raw/a.jsonl, line 1", "cannot be read"]),
        (
            "a.jsonl",
            spoiled(content("jsonl"), 5, '{"text": "Café"}'.encode("latin-1")),
            ["data/raw/a.jsonl, line 5", "not UTF-8"],
        ),
        ("a.csv", "text,label\nCafé,1\n".encode("latin-1"), ["data/raw/a.csv, line 2", "not UTF-8", "0xe9", "column 4"]),
        ("a.csv", "text,label\nCafé,1\n".encode("utf-16"), ["data/raw/a.csv", "UTF-16"]),
        ("a.csv", b'text,label\na,1\n"b,1\n', ["data/raw/a.csv, line 3", "not CSV", "no closing quote"]),
        ("a.jsonl.gz", zipped(content("jsonl"))[:-20], ["data/raw/a.jsonl.gz", "cannot be read", "incomplete"]),
        ("a.jsonl.gz", content("jsonl"), ["data/raw/a.jsonl.gz", "cannot be read", "gzip"]),
        ("a.jsonl.zst", zst(content("jsonl") * 9)[:-9], ["data/raw/a.jsonl.zst", "cannot be read", "Truncated"]),
        ("a.jsonl.gz", flipped(zipped(content("jsonl") * 400)), ["data/raw/a.jsonl.gz", "cannot be read"]),
        ("a.csv", b"text,label,label\na,1,0\n", ["data/raw/a.csv", "two columns", "'label'"]),
        ("a.parquet", parquet({"when": pa.array([2**50], pa.timestamp("ms"))}), ["data/raw/a.parquet", "cannot be read"]),
        ("a.my.csv", b'text\n"', ["data/raw/a.my.csv, line 2", "not CSV", "no closing quote"]),
        (
            "a.json",
            b'{"text": "a"}\n{\n"text": "b"}',
            ["a.json, line 2", "not JSON", "column 2"],
        ),
        ("a.parquet", content("parquet")[:-9], ["data/raw/a.parquet", "cannot be read"]),
        ("a.parquet", content("jsonl"), ["data/raw/a.parquet", "cannot be read"]),
        ("a.jsonl", b"", ["data/raw/a.jsonl", "cannot be read", "empty"]),
        ("a.jsonl.gz", zipped(b""), ["data/raw/a.jsonl.gz", "cannot be read", "empty"]),
        ("a.pkl", pickle.dumps(ROWS), ["data/raw/a.pkl", "unknown ending", ".jsonl, .json, .csv, .tsv, .parquet, .txt"]),
        ("a.jsonl", pickle.dumps(ROWS), ["data/raw/a.jsonl", "pickle"]),
        ("a.csv.gz", zipped(pickle.dumps(ROWS)), ["data/raw/a.csv.gz", "pickle"]),
    ],
)
def test_a_damaged_file_gives_an_error_of_one_line(raw: Path, name: str, data: bytes, parts: list[str]) -> None:
    (raw / name).write_bytes(data)
    with pytest.raises(StageError) as error:
        read(f"data/raw/{name}")
    assert_names(error.value, *parts)
    assert len(str(error.value).splitlines()) == 1


def test_a_pickle_is_never_opened(raw: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(raw / "sprung"),)

    (raw / "a.jsonl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(StageError, match="is a pickle"):
        read("data/raw/a.jsonl")
    assert not (raw / "sprung").exists()


def test_a_path_that_is_not_a_file_is_refused(raw: Path) -> None:
    (raw / "folder.jsonl").mkdir()
    (raw / "loop.jsonl").symlink_to(raw / "loop.jsonl")
    for name, parts in (
        ("folder.jsonl", ["data/raw/folder.jsonl", "no train.*"]),
        ("none.jsonl", ["data/raw/none.jsonl", "missing"]),
        ("*.csv", ["data.source", "data/raw/*.csv", "matches no file"]),
        ("**.jsonl", ["data.source", "data/raw/**.jsonl", "not a glob"]),
        ("*.jsonl", ["data/raw/folder.jsonl", "should be a file"]),
    ):
        with pytest.raises(StageError) as error:
            read(f"data/raw/{name}")
        assert_names(error.value, *parts)


def test_any_printable_file_name_is_accepted(raw: Path) -> None:
    for name in ("my[1].jsonl", "A b.ü.JSONL"):
        (raw / name).write_bytes(content("jsonl"))
        assert read(f"data/raw/{name}") == ROWS
    (raw / "other").mkdir()
    (raw / "other" / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(content("jsonl"))
    with pytest.raises(StageError) as error:
        read("data/raw/other/*.jsonl")
    assert_names(error.value, r"caf\udce9.jsonl", "cannot be printed")


def test_a_file_without_read_permission_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "a.jsonl").write_bytes(content("jsonl"))

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "data/raw/a.jsonl")  # root may read all files

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StageError) as error:
        read("data/raw/a.jsonl")
    assert_names(error.value, "data/raw/a.jsonl", "Permission denied")


@pytest.mark.parametrize("pack", [bytes, zipped, zst])
def test_only_the_line_that_is_too_long_is_rejected(raw: Path, pack: Callable[[bytes], bytes]) -> None:
    ending = {zipped: ".gz", zst: ".zst"}.get(pack, "")
    reason = f"a line {too_long(settings(max_characters=1000))}"
    assert_names(reason, f"more than {2**20} bytes", "data.max_characters")
    line = b'{"text": "' + b"a" * 3 * 2**20 + b'"}\n'
    (raw / f"a.jsonl{ending}").write_bytes(pack(b'{"text": "x"}\n' + line + b'{"text": "y"}\n' + line[:-1]))
    assert read(f"data/raw/a.jsonl{ending}", max_characters=1000) == [{"text": "x"}, reason, {"text": "y"}, reason]
    assert len(read(f"data/raw/a.jsonl{ending}", max_characters=100_000)[1]["text"]) == 3 * 2**20, "32 bytes a character"
    (raw / f"a.txt{ending}").write_bytes(pack(b"a" * 2**20 + b"\n" + b"b" * (2**20 - 1) + b"\nc"))
    assert read(f"data/raw/a.txt{ending}", max_characters=1000) == [reason, {"text": "b" * (2**20 - 1) + "\n"}, {"text": "c"}]


def test_a_line_of_1_gib_needs_less_than_100_mib_of_memory(raw: Path) -> None:
    with pa.OSFile("data/raw/a.jsonl.zst", "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as stream:
        for _ in range(1024):
            stream.write(b"a" * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read("data/raw/a.jsonl.zst") == [f"a line {too_long(settings())}"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_a_large_file_that_is_read_as_a_whole_is_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_sentiment.data.formats.LARGEST_WHOLE", 100)
    (raw / "lines.json").write_bytes(content("jsonl"))
    assert read("data/raw/lines.json") == ROWS, "JSON lines are read as a stream"
    for name, pack in (("a.json", bytes), ("a.json.gz", zipped), ("a.parquet.gz", zipped)):
        (raw / name).write_bytes(pack(content(name.split(".")[1])))
        with pytest.raises(StageError) as error:
            read(f"data/raw/{name}")
        assert_names(error.value, f"data/raw/{name}: ", "more than 100 bytes")
    (raw / "a.parquet").write_bytes(content("parquet"))
    assert read("data/raw/a.parquet") == ROWS


def test_a_file_whose_lines_end_in_cr_without_lf_is_refused(raw: Path) -> None:
    (raw / "a.txt").write_bytes(b"one\rtwo\r")
    with pytest.raises(StageError) as error:
        read("data/raw/a.txt")
    assert_names(error.value, "data/raw/a.txt", "end in CR")
    (raw / "a.txt").write_bytes(b"one\rtwo\nthree")
    assert read("data/raw/a.txt") == [{"text": "one\rtwo\n"}, {"text": "three"}]


def test_only_the_line_that_is_not_a_row_is_rejected(raw: Path) -> None:
    (raw / "a.jsonl").write_text('[1]\nnull\n7\n"a"\ntrue\n{"text": "a"}\n')
    *reasons, last = read("data/raw/a.jsonl")
    assert last == {"text": "a"}
    for reason, value in zip(reasons, ("a list", "null", "a number", "a text", "a truth value"), strict=True):
        assert_names(reason, value, "object")
    (raw / "a.csv").write_text("text,label\na,1\nb\nc,0,9\n\0,1\n")
    first, short, long, last = read("data/raw/a.csv")
    assert (first, last) == ({"text": "a", "label": "1"}, {"text": "\0", "label": "1"})
    assert_names(short, "number of fields", "first line", "1, not 2")
    assert_names(long, "number of fields", "first line", "3, not 2")


def hub(**changes: Any) -> HubSettings:
    known: dict[str, Any] = {"dataset": "owner/reviews", "config": None, "folder": None, "revision": "main"}
    return HubSettings(**(known | {"train": "train", "validation": None, "test": "test"} | changes))


def test_a_hub_data_set_is_read_by_config_folder_and_split(raw: Path) -> None:
    """`datasets` loads a local folder in the same way."""
    for folder in ("plain", "other"):
        (raw.parents[1] / "owner/reviews" / folder).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            rows = [row | {"text": f"{folder} {split} {row['text']}"} for row in ROWS]
            file = raw.parents[1] / f"owner/reviews/{folder}/{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = hub_files(hub(folder="other", validation="validation", train="train[:2]"), "data.hub.dataset")
    assert [(file.name, file.split) for file in files] == [
        ("owner/reviews, train", "train"),
        ("owner/reviews, validation", "validation"),
        ("owner/reviews, test", "test"),
    ]
    assert [number for number, _ in files[0].rows(settings())] == [1, 2]
    assert next(iter(files[2].rows(settings())))[1] == {"text": "other test The film was fine.", "label": "1"}
    card = "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: train\n    path: plain/test.jsonl\n---\n"
    (raw.parents[1] / "owner/reviews/README.md").write_text(card)
    (only,) = hub_files(hub(config="small", test=None), "data.hub.dataset")
    assert next(iter(only.rows(settings())))[1] == {"text": "plain test The film was fine.", "label": "1"}
    with pytest.raises(StageError, match=r"^data\.hub\.dataset owner/reviews, split dev, cannot be read: .*[Uu]nknown split"):
        hub_files(hub(config="small", test="dev"), "data.hub.dataset")


def test_a_data_set_with_a_script_is_refused(raw: Path) -> None:
    folder = raw.parents[1] / "owner/reviews"
    folder.mkdir(parents=True)
    (folder / "reviews.py").write_text(f"import os\nos.mkdir({str(raw / 'sprung')!r})\n")
    with pytest.raises(StageError, match="owner/reviews is refused, because its own script would run"):
        hub_files(hub(), "data.hub.dataset")
    assert not (raw / "sprung").exists()
