"""Rows of .csv and .tsv: which character parts the columns, what a quote means, and whether there is a header.

A .csv has quoting: a field in quotes may hold commas and line ends, and a quote in it is doubled. A .tsv has none, unless the
file was written with it, which the whole file decides (`_was_quoted`). So a stray quote costs no rows.

csv.reader cannot tell where a record begins or how long it grows. It is given its lines by `_records`, which watches that.
"""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..engine.errors import StageError
from ..engine.messages import shown
from ..engine.records import Row


class Line(NamedTuple):
    """A line of a file, with its end. Of one that is too long, `text` is a quote where it holds an odd number of them."""

    number: int  # from 1
    text: str
    is_whole: bool


Lines = Callable[[], Iterator[Line]]
# What makes a program put a field in quotes; a field without any of these is quoted where all of its column are.
_NEED = re.compile(r"""["\t\r\n,;]|^\s|\s$|^$""")


def delimited(
    path: Path, ending: str, look: Lines, lines: Iterator[Line], last_column: int, limit: int, too_long: str
) -> Iterator[tuple[int, Row | str]]:
    """The rows of a table, numbered from 1, each with its columns' names; or why it is no row.

    Args:
        ending: .csv or .tsv.
        look: reads the file from its beginning, to find out how it was written.
        lines: the lines that become rows.
        last_column: the greatest number by which `data.columns` names a column: the file has no header, and the names are
            "1", "2" and so on. 0: the first line is the header.
        limit: characters of the longest record; `too_long` says why a longer one is no row.

    Raises:
        StageError: a quote is left open or stands in the wrong place, two columns have one name, or there is no such column.
    """
    style = _style(look, ending, not last_column, limit)
    rows: Iterator[list[str] | str] = (row for row in _fields(path, lines, style, limit, too_long) if row != [])
    if last_column:
        first = list(itertools.islice(rows, 100))
        widths = Counter(len(row) for row in first if not isinstance(row, str))
        width = max(widths, key=lambda one: (widths[one], one), default=last_column)
        if last_column > width:
            raise StageError(f"{path}: data.columns names column {last_column}, and most lines have {width}")
        names, told = [str(number) for number in range(1, width + 1)], f"most lines have {width}"
        rows = itertools.chain(first, rows)
    else:
        header = next(rows, [])
        if isinstance(header, str):
            raise StageError(f"{path}: its first line is no header: {header}")
        refuse_twins(header, path)
        names, told = header, f"the first line has {len(header)}"
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            yield number, row
        elif len(row) != len(names):
            yield number, f"has {len(row)} fields, where {told}"
        else:
            yield number, dict(zip(names, row, strict=True))


def refuse_twins(names: Sequence[str], path: Path) -> None:
    """Refuse two columns of one name, of which one would be lost in silence.

    Raises:
        StageError: there are two.
    """
    twins = [name for number, name in enumerate(names) if name in names[:number]]
    if twins:
        raise StageError(f"{path}: two columns are called {shown(twins[0])}; rename one of them")


class _Style(NamedTuple):
    """How a table was written.

    Attributes:
        delimiter: what parts the columns.
        has_header: whether the first record is one.
        quotes: "doubled": a field may be in quotes, and a quote in it is doubled; "escaped": it follows a backslash; "none".
        width: how many fields most lines have.
        known: of each column with few values, these values; of another, none.
    """

    delimiter: str
    has_header: bool
    quotes: str
    width: int
    known: list[set[str]]


def _style(look: Lines, ending: str, has_header: bool, limit: int) -> _Style:
    """How a table was written."""
    delimiter = _delimiter(look) if ending == ".csv" else "\t"
    plain = (line.text.rstrip("\r\n") for line in itertools.islice(look(), 1000) if '"' not in line.text)
    lines = [[one[:100] for one in line.split(delimiter)] for line in plain]  # a label is short; long texts need no memory here
    widths = Counter(map(len, lines))
    width = max(widths, key=lambda one: (widths[one], one), default=0)
    values = [set(column) for column in zip(*(line for line in lines if len(line) == width), strict=True)]
    style = _Style(delimiter, has_header, "doubled", width, [column if len(column) <= 100 else set() for column in values])
    ways = [style, style._replace(quotes="escaped")]
    if delimiter == "\t":
        return next((way for way in ways if _was_quoted(look(), way, limit)), style._replace(quotes="none"))
    return next((way for way in ways if _can_be_read(look(), way, limit)), style)


def _delimiter(look: Lines) -> str:
    """What parts the columns of a .csv: of comma, semicolon and tab in its first line, the one that parts most lines alike."""
    first = next(look(), Line(1, "", True)).text
    bare = [re.sub(r'"[^"]*"', "", line.text) for line in itertools.islice(look(), 100)]

    def alike(one: str) -> int:
        return max(Counter(line.count(one) for line in bare if one in line).values(), default=0)

    return max([one for one in ",;\t" if one in first] or [","], key=alike)


def _was_quoted(lines: Iterator[Line], style: _Style, limit: int) -> bool:
    """Whether a table was written by a program that puts fields in quotes, and not by one that knows no quoting.

    No, where a field in quotes goes on after them, or has no end, or swallows rows, or a record of several lines has too
    many or too few fields. Otherwise yes, where quotes hold a tab or a line end. Without such, no, where a field holds a
    quote and is not in quotes, or is in quotes without need while others in its column are not.
    """
    columns = 0
    is_needed = has_stray = False
    needless, bare = set[int](), set[int]()
    try:
        for number, (record, row) in enumerate(_records(lines, style, limit)):
            is_header = number == 0 and style.has_header  # it can be quoted where its column is not, or the other way round
            fields = record.first.rstrip("\r\n").split(style.delimiter)
            columns = columns or len(row)
            if record.is_too_long and not record.is_rows:
                continue
            if record.fault or record.is_rows or (record.lines > 1 and len(row) != columns):
                return False
            if record.lines > 1 or len(fields) != len(row):
                is_needed = True
                continue
            for column, (raw, value) in enumerate(zip(fields, row, strict=True)):
                if not raw.startswith('"'):
                    has_stray = has_stray or '"' in raw
                    if raw and not is_header:
                        bare.add(column)
                elif not is_header and not _NEED.search(value):
                    needless.add(column)
    except csv.Error:
        return False
    return is_needed or not (has_stray or needless & bare)


def _can_be_read(lines: Iterator[Line], style: _Style, limit: int) -> bool:
    try:
        for _ in _records(lines, style, limit):
            pass
    except csv.Error:
        return False
    return True


def _fields(path: Path, lines: Iterator[Line], style: _Style, limit: int, too_long: str) -> Iterator[list[str] | str]:
    """The fields of each record, or why it is no row; no fields, of a blank line."""
    if style.quotes == "none":
        for line in lines:
            text = line.text.rstrip("\r\n")
            yield (text.split(style.delimiter) if text else []) if line.is_whole else f"a line of {too_long}"
        return
    try:
        for record, row in _records(lines, style, limit):
            if record.is_rows:
                raise StageError(
                    f"{path}, line {record.number}: a quote opens a field that goes on for {record.lines} lines, each of "
                    "which would be a row of its own; double the quote, or take it out"
                )
            yield f"a record of {too_long}" if record.is_too_long else record.fault or row
    except csv.Error as error:
        raise StageError(f"{path}, {error}") from None


@dataclass
class _Record:
    """The lines of one record, as csv.reader takes them.

    Attributes:
        number: of its first line, whose text is `first`.
        size: characters.
        fault: why it is no row, where csv.reader says so.
    """

    style: _Style
    limit: int
    number: int = 0
    first: str = ""
    lines: int = 0
    size: int = 0
    is_too_long: bool = False
    fault: str = ""
    _fits: bool = True  # each line, quotes taken as letters, has as many fields as a row
    _alike: set[int] = field(default_factory=set)  # columns in which each line has a value that rows have there

    def add(self, line: Line) -> str:
        """What csv.reader should read for the next line: itself, or the quote it leaves open where it is too much."""
        self.lines += 1
        self.size += len(line.text)
        if self.lines == 1:
            self.number, self.first = line.number, line.text
        else:
            if self.lines == 2:
                self._alike = set(range(len(self.style.known)))
                self._compare(self.first)
            self._compare(line.text)
        text = line.text.replace('\\"', '""') if self.style.quotes == "escaped" else line.text
        self.is_too_long = self.is_too_long or self.size > self.limit or not line.is_whole
        return '"' * (text.count('"') % 2) if self.is_too_long else text

    def _compare(self, text: str) -> None:
        fields = text.rstrip("\r\n").split(self.style.delimiter)
        self._fits = self._fits and len(fields) == self.style.width
        if self._fits:
            self._alike = {column for column in self._alike if fields[column] in self.style.known[column]}

    @property
    def is_rows(self) -> bool:
        """Whether it looks like rows that a stray quote made one. In prose tabs are rare, and commas are not."""
        is_likely = self.style.delimiter == "\t" or bool(self._alike)
        return self.lines > 1 and self.style.width > 1 and self._fits and is_likely


def _records(lines: Iterator[Line], style: _Style, limit: int) -> Iterator[tuple[_Record, list[str]]]:
    """Each record of a table with quoting, and its fields, in memory that does not grow with its length.

    Raises:
        csv.Error: a quote stands in the wrong place, or has no end; the message names the line.
    """
    record = _Record(style, limit)
    csv.field_size_limit(2**31 - 1)  # `limit` is the limit
    reader = csv.reader((record.add(line) for line in lines), delimiter=style.delimiter, strict=True)
    while True:
        record = _Record(style, limit)  # what `reader` now adds its lines to
        try:
            yield record, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "new-line character" in str(error):
                record.fault = "a line end (CR) stands in a field without quotes"
                yield record, []
            elif "unexpected end" in str(error):
                raise csv.Error(f"line {record.number}: not CSV: {error}; a quote opens a field there and has no end") from None
            else:
                at = record.number + record.lines - 1
                raise csv.Error(
                    f"line {at}: not CSV: {error}; in a field that begins with a quote, others are doubled"
                ) from None
