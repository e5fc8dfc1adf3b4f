"""Read the rows of .csv and .tsv files: find the delimiter, the meaning of quotes, and the header.

A .csv has quoting: a field in quotes may contain commas and line breaks, and a quote in it is doubled. A .tsv has no quoting,
unless the file was written with it. `_was_quoted` decides that from the whole file. So an unmatched quote loses no rows.

csv.reader does not report where a record begins or how long it grows. `_records` passes it single lines, and checks both.
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
    """A line of a file, with its end.

    The text of a line that is too long is not kept. It is one quote if the line has an odd number of quotes, and else empty.
    """

    number: int  # from 1
    text: str
    is_whole: bool


Lines = Callable[[], Iterator[Line]]
# Programs put a field in quotes if it matches this, or if they quote all fields of its column.
_NEED = re.compile(r"""["\t\r\n,;]|^\s|\s$|^$""")


def delimited(
    path: Path, ending: str, look: Lines, lines: Iterator[Line], last_column: int, limit: int, too_long: str
) -> Iterator[tuple[int, Row | str]]:
    """Yield the rows of a table, numbered from 1, by their columns' names. For an unusable row, yield the reason.

    Args:
        path: the file, for messages.
        ending: .csv or .tsv.
        look: reads the file from its beginning, to find out how it was written.
        lines: the lines that become rows.
        last_column: the largest number of a column in `data.columns`. If it is not 0, the file has no header, and the names of
            the columns are "1", "2" and so on. If it is 0, the first line is the header.
        limit: characters of the longest record.
        too_long: the reason for a longer record, without its subject.

    Raises:
        StageError: a quote is not closed or in the wrong place, two columns have one name, or column `last_column` is missing.
    """
    style = _style(look, ending, not last_column, limit)
    rows: Iterator[list[str] | str] = (row for row in _fields(path, lines, style, limit, too_long) if row != [])
    if last_column:
        first = list(itertools.islice(rows, 100))
        widths = Counter(len(row) for row in first if not isinstance(row, str))
        width = max(widths, key=lambda one: (widths[one], one), default=last_column)
        if last_column > width:
            raise StageError(f"{path}: data.columns names column {last_column}, but most lines have {width} columns")
        names, expected = [str(number) for number in range(1, width + 1)], "most lines"
        rows = itertools.chain(first, rows)
    else:
        header = next(rows, [])
        if isinstance(header, str):
            raise StageError(f"{path}: the first line is not a header: {header}")
        refuse_twins(header, path)
        names, expected = header, "the first line"
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            yield number, row
        elif len(row) != len(names):
            yield number, f"another number of fields than {expected} ({len(row)}, not {len(names)})"
        else:
            yield number, dict(zip(names, row, strict=True))


def refuse_twins(names: Sequence[str], path: Path) -> None:
    """Refuse two columns with one name: one of them would be lost.

    Raises:
        StageError: two columns have one name.
    """
    twins = [name for number, name in enumerate(names) if name in names[:number]]
    if twins:
        raise StageError(f"{path}: two columns have the name {shown(twins[0])}; rename one of them")


class _Style(NamedTuple):
    """How a table was written.

    Attributes:
        delimiter: the character between two columns.
        has_header: whether the first record is the header.
        quotes: "doubled" (a field may be in quotes, and a quote in it is doubled), "escaped" (a quote in a field in quotes
            follows a backslash) or "none".
        width: the number of fields of most lines.
        known: for each column, its values if there are few; else an empty set.
    """

    delimiter: str
    has_header: bool
    quotes: str
    width: int
    known: list[set[str]]


def _style(look: Lines, ending: str, has_header: bool, limit: int) -> _Style:
    """Find out how a table was written."""
    delimiter = _delimiter(look) if ending == ".csv" else "\t"
    plain = (line.text.rstrip("\r\n") for line in itertools.islice(look(), 1000) if '"' not in line.text)
    lines = [[one[:100] for one in line.split(delimiter)] for line in plain]  # labels are short, and long texts take memory
    widths = Counter(map(len, lines))
    width = max(widths, key=lambda one: (widths[one], one), default=0)
    values = [set(column) for column in zip(*(line for line in lines if len(line) == width), strict=True)]
    style = _Style(delimiter, has_header, "doubled", width, [column if len(column) <= 100 else set() for column in values])
    ways = [style, style._replace(quotes="escaped")]
    if delimiter == "\t":
        return next((way for way in ways if _was_quoted(look(), way, limit)), style._replace(quotes="none"))
    return next((way for way in ways if _can_be_read(look(), way, limit)), style)


def _delimiter(look: Lines) -> str:
    """Return the delimiter of a .csv: comma, semicolon or tab.

    It is in the first line, and gives the most of the first hundred lines the same number of fields.
    """
    first = next(look(), Line(1, "", True)).text
    bare = [re.sub(r'"[^"]*"', "", line.text) for line in itertools.islice(look(), 100)]

    def alike(one: str) -> int:
        return max(Counter(line.count(one) for line in bare if one in line).values(), default=0)

    return max([one for one in ",;\t" if one in first] or [","], key=alike)


def _was_quoted(lines: Iterator[Line], style: _Style, limit: int) -> bool:
    """Return whether a table was written by a program that puts fields in quotes.

    The first rule that applies decides:

    1. No, if a field in quotes goes on after the closing quote, has no end, or contains whole rows.
    2. No, if a record of several lines has too many or too few fields.
    3. Yes, if some quotes contain a tab or a line break.
    4. No, if a field contains a quote but does not begin with one.
    5. No, if only some fields of a column are in quotes, and one of them does not need quotes.
    6. Yes.
    """
    columns = 0
    is_needed = has_stray = False
    needless, bare = set[int](), set[int]()
    try:
        for number, (record, row) in enumerate(_records(lines, style, limit)):
            is_header = number == 0 and style.has_header  # a header may be in quotes although its column is not, or not
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
    """Yield the fields of each record, or the reason why it is not a row. A blank line has no fields."""
    if style.quotes == "none":
        for line in lines:
            text = line.text.rstrip("\r\n")
            yield (text.split(style.delimiter) if text else []) if line.is_whole else f"a line {too_long}"
        return
    try:
        for record, row in _records(lines, style, limit):
            if record.is_rows:
                raise StageError(
                    f"{path}, line {record.number}: a quote begins a field of {record.lines} lines, but each line looks like a "
                    "separate row; double the quote, or leave it out"
                )
            yield f"a record {too_long}" if record.is_too_long else record.fault or row
    except csv.Error as error:
        raise StageError(f"{path}, {error}") from None


@dataclass
class _Record:
    """The lines of one record, while csv.reader reads them.

    Attributes:
        style: how the table was written.
        limit: characters of the longest record.
        number: the number of the first line.
        first: the text of the first line.
        lines: the number of lines so far.
        size: the number of characters so far.
        is_too_long: whether the record is longer than `limit`.
        fault: the reason why the record is not a row, if csv.reader finds one.
    """

    style: _Style
    limit: int
    number: int = 0
    first: str = ""
    lines: int = 0
    size: int = 0
    is_too_long: bool = False
    fault: str = ""
    _fits: bool = True  # each line, with quotes read as letters, has as many fields as a row
    _alike: set[int] = field(default_factory=set)  # columns in which each line has a known value of that column

    def add(self, line: Line) -> str:
        """Add the next line, and return the text for csv.reader: the line, or one open quote if the record is too long."""
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
        """Whether the record looks like several rows joined by an unmatched quote. Tabs are rare in prose; commas are not."""
        is_likely = self.style.delimiter == "\t" or bool(self._alike)
        return self.lines > 1 and self.style.width > 1 and self._fits and is_likely


def _records(lines: Iterator[Line], style: _Style, limit: int) -> Iterator[tuple[_Record, list[str]]]:
    """Yield each record of a table with quoting, and its fields, in memory that does not grow with its length.

    Raises:
        csv.Error: a quote is in the wrong place, or is not closed. The message names the line.
    """
    record = _Record(style, limit)
    csv.field_size_limit(2**31 - 1)  # `limit` is the limit
    reader = csv.reader((record.add(line) for line in lines), delimiter=style.delimiter, strict=True)
    while True:
        record = _Record(style, limit)  # `reader` adds its next lines to it
        try:
            yield record, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "new-line character" in str(error):
                record.fault = "a field without quotes contains a line end (CR)"
                yield record, []
            elif "unexpected end" in str(error):
                raise csv.Error(
                    f"line {record.number}: not CSV: {error}; the quote at the start of a field has no closing quote"
                ) from None
            else:
                at = record.number + record.lines - 1
                raise csv.Error(
                    f"line {at}: not CSV: {error}; double every quote inside a field that begins with a quote"
                ) from None
