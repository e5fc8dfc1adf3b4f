"""Tables as programs and people write them: what a quote means, what parts the columns, and whether there is a header."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.intake import Intake
from rlhf_sentiment.engine.errors import StageError

from .conftest import SHARED
from .test_files import read, settings

NUMBERS = {"text": 1, "label": 2}


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder data/raw in the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path / "data/raw"


def table(text: str, ending: str = "tsv", **changes: Any) -> list[Any]:
    """The rows of a table of that text, each as its values, or why it is none."""
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
        [('"open', "0"), ("one", "1"), ("two", "0"), ('he said "', "1"), ("three", "0")],  # three rows would be swallowed
        [('"a whole text in quotes"', "1"), ("fine", "0")],
        [('he said "dull"', "0"), ('"a whole one"', "1")],
        [('"a whole one, with a comma"', "1"), ('he said "dull"', "0")],
        [('"open to the end', "0"), ("one", "1")],
        [('""', "0"), ("one\rtwo", "1"), ("back\\slash", "1")],
    ],
)
@pytest.mark.parametrize("has_header", [True, False])
def test_a_tsv_has_no_quoting_unless_it_was_written_with_it(rows: list[tuple[str, str]], has_header: bool) -> None:
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
def test_a_tsv_that_was_written_with_quoting_is_read_so(quoting: Any, kept: slice) -> None:
    rows = [(text, int(label)) for text, label in TEXTS[kept]]
    expected = TEXTS[kept]
    assert table(written(rows, quoting=quoting)) == expected
    assert table(written(rows * 9, quoting=quoting, lineterminator="\n")) == expected * 9
    assert table(written([(label, text) for text, label in rows], quoting=quoting)) == [row[::-1] for row in expected]


def test_what_quotes_must_hold_outweighs_a_stray_one() -> None:
    assert table('text\tlabel\n"one\ttwo"\t1\nhe said "so"\t0\n') == [("one\ttwo", "1"), ('he said "so"', "0")]
    assert table('text\n"one\ntwo"\nthree\n') == [("one\ntwo",), ("three",)], "one column alone has no rows to swallow"


def test_a_short_row_says_nothing_of_quoting() -> None:
    text = written([('a "b" c', 1), ("x\ty", 0)]) + "alone\r\n"
    assert table(text) == [('a "b" c', "1"), ("x\ty", "0"), "has 1 fields, where the first line has 2"]


def test_a_quote_after_a_backslash_is_a_quote_where_fields_are_in_quotes() -> None:
    """As R's write.table has it; other backslashes are letters."""
    text = '"text"\t"label"\n"He said \\"dull\\" of C:\\new"\t"neg"\n"fine"\t"pos"\n'
    expected = [('He said "dull" of C:\\new', "neg"), ("fine", "pos")]
    assert table(text) == expected
    assert table(text.replace("\t", ","), "csv") == expected


def test_a_csv_has_quoting() -> None:
    assert table(written(TEXTS, delimiter=","), "csv") == TEXTS
    assert table('text,label\nhe is 6\'2", and "so" on,1\n', "csv") == ["has 3 fields, where the first line has 2"]
    assert table('text,label\nhe said "so",1\n', "csv") == [('he said "so"', "1")]
    lines = [("A poem, of course\nof two lines", "1"), ("plain", "0"), ("Three, too\nfour, too\nfive", "1")]
    assert table(written(lines, delimiter=","), "csv") == lines, "each line alone has two fields, and yet is no row"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'text,label\na,0\n"b,1\nc,0\nd is 6\'2",1\ne,1\n',
            "a.csv, line 3: a quote opens a field of 3 lines",
        ),
        (
            'text,label\na,0\n"b,1\n' + "c,0\n" * 5000,
            "a.csv, line 3: not CSV: unexpected end of data",
        ),
        ('text,label\na,0\n"b" c,1\n', "a.csv, line 3: not CSV: ',' expected after '\"'"),
        ('text,label\na,0\n"b\nc" d,1\n', "a.csv, line 4: not CSV: ',' expected after '\"'"),
        ("text,label\ra,0\rb,1\r", "a.csv: the lines end in CR alone"),
    ],
)
def test_a_csv_whose_quotes_swallow_rows_is_refused(text: str, said: str) -> None:
    with pytest.raises(StageError) as error:
        table(text, "csv")
    assert f"data/raw/{said}" in str(error.value)


def test_a_line_end_within_a_csv_field_costs_that_row() -> None:
    reason = "a line end (CR) stands in a field without quotes"
    assert table("text,label\r\na\rb,0\r\nc,1\r\n", "csv") == [reason, ("c", "1")]


def test_semicolons_or_tabs_part_a_csv_without_commas_in_its_header() -> None:
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
def test_what_parts_most_lines_alike_is_the_delimiter(text: str, rows: list[tuple[str, str]]) -> None:
    assert table(text, "csv", columns=NUMBERS) == rows


def test_rejected_rows_are_warned_of_before_the_labels_stop_the_stage(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"bad {number},0\ngood, {number},1\n" for number in range(20))
    (raw / "a.csv").write_text("text,label\n" + rows)
    with pytest.raises(StageError, match="no label is positive; the labels are '0'"):
        Intake(files_at("data/raw/a.csv", "data.source"), ("labelled",), settings(), "data.source", 0, 0.0)
    assert "20 of 40 rows are rejected; 20 of 20: has N fields, where the first line has N" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_columns_by_number_are_of_a_file_without_a_header(ending: str) -> None:
    text = "a\n\nb,0,x\nc,1,y\nd,0\ne,1,z".replace(",", "," if ending == "csv" else "\t")
    short = "where most lines have 3"
    expected = [f"has 1 fields, {short}", ("b", "0", "x"), ("c", "1", "y"), f"has 2 fields, {short}", ("e", "1", "z")]
    assert table(text, ending, columns=NUMBERS) == expected
    assert read(f"data/raw/a.{ending}", columns=NUMBERS)[1] == {"1": "b", "2": "0", "3": "x"}
    with pytest.raises(StageError, match=rf"^data/raw/a\.{ending}: data\.columns names column 4, .* 3 columns$"):
        table(text, ending, columns={"text": 1, "label": 4})


def test_a_file_without_a_header_is_told_of_numbers(raw: Path) -> None:
    for ending, is_table in (("tsv", True), ("jsonl", False)):
        (raw / f"a.{ending}").write_text("A film\t1\nAnother\t0\n" if ending == "tsv" else '{"A film": 1}')
        with pytest.raises(StageError) as error:
            Intake(files_at(f"data/raw/a.{ending}", "data.source"), ("labelled",), settings(), "data.source", 0, 0.0)
        assert "data.columns" in str(error.value)
        assert ("{text: 1, label: 2}" in str(error.value)) == is_table


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "txt"])
def test_columns_by_number_of_a_file_with_names_are_refused(raw: Path, ending: str) -> None:
    (raw / f"a.{ending}").write_text("{}")
    with pytest.raises(StageError, match=rf"^data/raw/a\.{ending}: data\.columns has numbers"):
        read(f"data/raw/a.{ending}", columns=NUMBERS)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": 1, "label": "label"}, "data.columns: use either names"),
        ({"text": 1, "label": 1}, "1 cannot be two columns"),
        ({"text": 0}, "(got 0)"),
        ({"text": True}, "(got True)"),
    ],
)
def test_columns_that_cannot_be(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="1 validation error") as error:
        settings(columns=columns)
    assert said in str(error.value)


# At most 1,000 characters a text: a line may have 2**20 bytes.
LONG = 2**20
REASON = f"of more than {LONG} bytes; a higher data.max_characters allows more"


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
def test_a_record_that_is_too_long_costs_only_itself(ending: str, row: str, reason: str) -> None:
    part = "," if ending == "csv" else "\t"
    text = f"text{part}label\nx{part}0\n{row}y{part}1\n"
    assert table(text, ending, max_characters=1000) == [("x", "0"), reason, ("y", "1")]


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the cases of ../shared (or RLHF_SHARED)")
def test_the_cases_are_read(raw: Path) -> None:
    for name, columns in (("02-tsv-quotes", {}), ("14-no-header", NUMBERS)):
        lines = (SHARED / f"cases/{name}.tsv").read_text().splitlines()
        (raw / f"{name}.tsv").symlink_to(SHARED / f"cases/{name}.tsv")
        rows = read(f"data/raw/{name}.tsv", columns=columns)
        assert ["\t".join(row.values()) for row in rows] == lines[not columns :]
        assert len(rows) == 400
