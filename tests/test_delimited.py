"""CSV and TSV files as programs and people write them: quotes, delimiters and headers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.formats import too_long
from rlhf_sentiment.data.intake import Intake
from rlhf_sentiment.engine.errors import StageError

from .conftest import SHARED, assert_names
from .test_files import read, settings

NUMBERS = {"text": 1, "label": 2}


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder data/raw in a new current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path / "data/raw"


def table(text: str, ending: str = "tsv", **changes: Any) -> list[Any]:
    """Return the rows of a table with this text, each as its values or as the reason why it is not a row."""
    Path(f"data/raw/a.{ending}").write_text(text, newline="")
    rows = read(f"data/raw/a.{ending}", **changes)
    return [tuple(row.values()) if isinstance(row, dict) else row for row in rows]


def written(rows: Sequence[Sequence[object]], **how: Any) -> str:
    text = io.StringIO()
    csv.writer(text, **{"delimiter": "\t"} | how).writerows([("text", "label"), *rows])
    return text.getvalue()


@pytest.mark.parametrize(
    "rows",
    [
        [('"Great" film', "1"), ("fine", "0")],  # csv.reader: ' ' expected after '"'
        [('a "', "1"), ('"b', "0")],
        [('"open', "0"), ("one", "1"), ("two", "0"), ('he said "', "1"), ("three", "0")],  # three rows would be lost
        [('"a whole text in quotes"', "1"), ("fine", "0")],
        [('he said "dull"', "0"), ('"a whole one"', "1")],
        [('"a whole one, with a comma"', "1"), ('he said "dull"', "0")],
        [('"open to the end', "0"), ("one", "1")],
        [('""', "0"), ("one\rtwo", "1"), ("back\\slash", "1")],
    ],
)
@pytest.mark.parametrize("has_header", [True, False])
def test_quotes_in_a_tsv_without_quoting_are_ordinary_characters(rows: list[tuple[str, str]], has_header: bool) -> None:
    text = "".join("\t".join(row) + "\n" for row in [*[("text", "label")] * has_header, *rows])
    assert table(text, columns={} if has_header else NUMBERS) == rows


TEXTS = [
    ('He said "dull".', "0"),
    ("one\ttwo", "1"),
    ('line\n\nline, "line"\nline', "0"),
    ('"all of it"', "1"),
    ("plain", "0"),
    ("", "1"),
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("kept", [slice(None), slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 5)])
def test_a_tsv_with_quoting_gives_the_fields_without_quotes(quoting: Any, kept: slice) -> None:
    rows = [(text, int(label)) for text, label in TEXTS[kept]]
    expected = TEXTS[kept]
    assert table(written(rows, quoting=quoting)) == expected
    assert table(written(rows * 9, quoting=quoting, lineterminator="\n")) == expected * 9
    assert table(written([(label, text) for text, label in rows], quoting=quoting)) == [row[::-1] for row in expected]


def test_a_quoted_tab_or_line_break_shows_quoting_despite_a_stray_quote() -> None:
    assert table('text\tlabel\n"one\ttwo"\t1\nhe said "so"\t0\n') == [("one\ttwo", "1"), ('he said "so"', "0")]
    assert table('text\n"one\ntwo"\nthree\n') == [("one\ntwo",), ("three",)], "a table of one column"


def test_a_short_row_does_not_decide_about_quoting() -> None:
    text = written([('a "b" c', 1), ("x\ty", 0)]) + "alone\r\n"
    *rows, reason = table(text)
    assert rows == [('a "b" c', "1"), ("x\ty", "0")]
    assert_names(reason, "number of fields", "1, not 2")


def test_a_backslash_escapes_a_quote_inside_a_quoted_field() -> None:
    """R's write.table escapes quotes with a backslash. Other backslashes are ordinary characters."""
    text = '"text"\t"label"\n"He said \\"dull\\" of C:\\new"\t"neg"\n"fine"\t"pos"\n'
    expected = [('He said "dull" of C:\\new', "neg"), ("fine", "pos")]
    assert table(text) == expected
    assert table(text.replace("\t", ","), "csv") == expected


def test_a_csv_has_quoting() -> None:
    assert table(written(TEXTS, delimiter=","), "csv") == TEXTS
    (reason,) = table('text,label\nhe is 6\'2", and "so" on,1\n', "csv")
    assert_names(reason, "number of fields", "3, not 2")
    assert table('text,label\nhe said "so",1\n', "csv") == [('he said "so"', "1")]
    lines = [("A poem, of course\nof two lines", "1"), ("plain", "0"), ("Three, too\nfour, too\nfive", "1")]
    assert table(written(lines, delimiter=","), "csv") == lines, "each line has two fields, but is only a part of a row"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            'text,label\na,0\n"b,1\nc,0\nd is 6\'2",1\ne,1\n',
            ["a.csv, line 3", "quote", "field of 3 lines"],
        ),
        (
            'text,label\na,0\n"b,1\n' + "c,0\n" * 5000,
            ["a.csv, line 3", "not CSV", "no closing quote"],
        ),
        ('text,label\na,0\n"b" c,1\n', ["a.csv, line 3", "not CSV", "double every quote"]),
        ('text,label\na,0\n"b\nc" d,1\n', ["a.csv, line 4", "not CSV", "double every quote"]),
        ("text,label\ra,0\rb,1\r", ["a.csv: ", "end in CR"]),
    ],
)
def test_a_csv_with_a_stray_quote_that_joins_rows_is_refused(text: str, parts: list[str]) -> None:
    with pytest.raises(StageError) as error:
        table(text, "csv")
    assert_names(error.value, "data/raw/", *parts)


def test_only_the_csv_row_with_a_line_end_in_a_field_is_rejected() -> None:
    reason, row = table("text,label\r\na\rb,0\r\nc,1\r\n", "csv")
    assert row == ("c", "1")
    assert_names(reason, "without quotes", "line end (CR)")


def test_the_delimiter_of_a_csv_without_commas_in_its_header_is_a_semicolon_or_tab() -> None:
    assert table('text;label\n"a, b; c";1\nd, e;0\n', "csv") == [("a, b; c", "1"), ("d, e", "0")]
    assert table('text\tlabel\n"a, b\t1\n', "csv") == [('"a, b', "1")]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a, b, c;1\nd;0\ne, f;1\n", [("a, b, c", "1"), ("d", "0"), ("e, f", "1")]),
        ('"a, b";1\n"c, d";0\n"e";0\n', [("a, b", "1"), ("c, d", "0"), ("e", "0")]),
        ("a; b,1\nc,0\nd;e;f,1\n", [("a; b", "1"), ("c", "0"), ("d;e;f", "1")]),
        ("a, b; c\t1\nd\t0\n", [("a, b; c", "1"), ("d", "0")]),
        ("a;b,1\n", [("a;b", "1")]),
    ],
)
def test_the_delimiter_gives_most_lines_the_same_number_of_fields(text: str, rows: list[tuple[str, str]]) -> None:
    assert table(text, "csv", columns=NUMBERS) == rows


def test_rejected_rows_give_a_warning_before_the_labels_stop_the_stage(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"bad {number},0\ngood, {number},1\n" for number in range(20))
    (raw / "a.csv").write_text("text,label\n" + rows)
    with pytest.raises(StageError) as error:
        Intake(files_at("data/raw/a.csv", "data.source"), ("labelled",), settings(), "data.source", 0, 0.0)
    assert_names(error.value, "data/raw/a.csv", "no label is positive", "'0' (20x)")
    assert_names(
        capsys.readouterr().err, "20 of 40 rows are rejected", "20 of 20: another number of fields than the first line\n"
    )


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_file_without_a_header_has_columns_by_number(ending: str) -> None:
    text = "a\n\nb,0,x\nc,1,y\nd,0\ne,1,z".replace(",", "," if ending == "csv" else "\t")
    rows = table(text, ending, columns=NUMBERS)
    assert [row for row in rows if isinstance(row, tuple)] == [("b", "0", "x"), ("c", "1", "y"), ("e", "1", "z")]
    assert_names(rows[0], "number of fields", "most lines", "1, not 3")
    assert_names(rows[3], "number of fields", "most lines", "2, not 3")
    assert read(f"data/raw/a.{ending}", columns=NUMBERS)[1] == {"1": "b", "2": "0", "3": "x"}
    with pytest.raises(StageError) as error:
        table(text, ending, columns={"text": 1, "label": 4})
    assert_names(error.value, f"data/raw/a.{ending}", "data.columns", "column 4", "3 columns")


def test_the_error_for_a_table_without_a_header_names_columns_by_number(raw: Path) -> None:
    for ending, is_table in (("tsv", True), ("jsonl", False)):
        (raw / f"a.{ending}").write_text("A film\t1\nAnother\t0\n" if ending == "tsv" else '{"A film": 1}')
        with pytest.raises(StageError) as error:
            Intake(files_at(f"data/raw/a.{ending}", "data.source"), ("labelled",), settings(), "data.source", 0, 0.0)
        assert_names(error.value, f"data/raw/a.{ending}", "columns are A film", "data.columns")
        assert ("{text: 1, label: 2}" in str(error.value)) == is_table


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "txt"])
def test_columns_by_number_of_a_file_with_names_are_refused(raw: Path, ending: str) -> None:
    (raw / f"a.{ending}").write_text("{}")
    with pytest.raises(StageError) as error:
        read(f"data/raw/a.{ending}", columns=NUMBERS)
    assert_names(error.value, f"data/raw/a.{ending}", "data.columns", "numbers")


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"text": 1, "label": "label"}, ["data.columns", "either names"]),
        ({"text": 1, "label": 1}, ["data.columns", "1 cannot be two columns"]),
        ({"text": 0}, ["(got 0)"]),
        ({"text": True}, ["(got True)"]),
    ],
)
def test_column_numbers_that_contradict_or_are_not_numbers_are_refused(columns: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match="1 validation error") as error:
        settings(columns=columns)
    assert_names(error.value, *parts)


# A text has at most 1,000 characters, because a line may have 2**20 bytes.
LONG = 2**20
REASON = too_long(settings(max_characters=1000))


@pytest.mark.parametrize(
    ("ending", "row", "reason"),
    [
        ("csv", "a" * LONG + ",1\n", f"a record {REASON}"),
        ("csv", '"' + "a, b\n" * LONG + '",1\n', f"a record {REASON}"),
        ("csv", '"' + 'a ""b""\n' * LONG + '",1\n', f"a record {REASON}"),
        ("csv", '"' + "a" * LONG + '\nb",1\n', f"a record {REASON}"),
        ("csv", '"b\n' + "a" * LONG + '",1\n', f"a record {REASON}"),
        ("tsv", '"' + "a" * LONG + "\t1\n", f"a line {REASON}"),
        ("tsv", '"' + "a\n" * LONG + '"\t1\n', f"a record {REASON}"),
    ],
)
def test_only_the_record_that_is_too_long_is_rejected(ending: str, row: str, reason: str) -> None:
    part = "," if ending == "csv" else "\t"
    text = f"text{part}label\nx{part}0\n{row}y{part}1\n"
    assert table(text, ending, max_characters=1000) == [("x", "0"), reason, ("y", "1")]
    assert_names(reason, f"more than {LONG} bytes")


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the cases of ../shared (or RLHF_SHARED)")
def test_the_shared_tables_are_read(raw: Path) -> None:
    for name, columns in (("02-tsv-quotes", {}), ("14-no-header", NUMBERS)):
        lines = (SHARED / f"cases/{name}.tsv").read_text().splitlines()
        (raw / f"{name}.tsv").symlink_to(SHARED / f"cases/{name}.tsv")
        rows = read(f"data/raw/{name}.tsv", columns=columns)
        assert ["\t".join(row.values()) for row in rows] == lines[not columns :]
        assert len(rows) == 400
