"""From one file to its rows: JSON lines, JSON, CSV, TSV, Parquet and plain text, each also .gz or .zst.

A file is read as a stream, so that its size does not matter, and is never unpickled. (A list in .json and a compressed
.parquet are read whole, up to `LARGEST_WHOLE`.) A row that is no row costs only itself: a JSON line that holds a number, a
CSV line with too many fields, a line that is too long. A file that is damaged stops the reading, and the message names the
line.
"""

import gzip
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any
from unicodedata import category

import pyarrow as pa
import pyarrow.parquet

from ..engine.errors import StageError
from ..engine.messages import shown
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..settings.data import DataSettings
from .delimited import Line, delimited, refuse_twins

# Where a row stands in its file (a number from 1, or the name of its text), and what it holds: the row, or why it is none.
Numbered = tuple[int | str, Row | str]
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_HELD_OUT = re.compile(
    r"(?<![a-z])(test(ing)?|val(id(ation)?)?|dev(elopment)?|eval(uation)?|h[eo]ld[^a-z]?out|unseen)(set|data|split)?s?(?![a-z])"
)
LARGEST_WHOLE = 2**28  # bytes of a file that cannot be read as a stream
_BLOCK = 2**20  # bytes


def ending_of(path: Path) -> str | None:
    """The ending that says how a file is read, without that of its compression; None where there is no such."""
    ending = Path(re.sub(r"\.(gz|zst)$", "", path.name.lower())).suffix
    return ending if ending in ENDINGS else None


def split_of_name(path: Path) -> str | None:
    """The split that a file's name begins with, as in test.csv or train-00000-of-00002.parquet."""
    word = re.match(r"[a-z]*", path.name.lower())
    return SPLITS.get(word[0]) if word else None


def looks_held_out(name: str) -> bool:
    """Whether a word such as test, val or holdout stands anywhere in a name, as in my_test.csv, testData.tsv or held-out."""
    return bool(_HELD_OUT.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()))


def refuse_unprintable(path: Path) -> None:
    """Refuse a name with control characters, or with bytes that are not UTF-8.

    Raises:
        StageError: it has them.
    """
    if any(category(letter) in ("Cc", "Cs") for letter in str(path)):
        raise StageError(f"{shown(str(path))} has a name that cannot be printed; rename it")


def longest_line(data: DataSettings) -> int:
    """Bytes of the longest line, field or text that is read: room for several texts of `data.max_characters`, escaped."""
    return max(2**20, 32 * data.max_characters)


def too_long(data: DataSettings) -> str:
    """Why a line, a field or a text is no row."""
    return f"more than {longest_line(data)} bytes; a higher data.max_characters allows more"


def refuse_numbers(name: str, data: DataSettings) -> None:
    """Refuse columns by number for rows whose columns have names.

    Raises:
        StageError: `data.columns` has numbers.
    """
    if data.last_column:
        raise StageError(
            f"data.columns has numbers, which go with .csv and .tsv without a header; the columns of {name} have names"
        )


def rows_of(path: Path, data: DataSettings) -> Iterator[Numbered]:
    """The rows of one file, with a progress bar over its bytes.

    Raises:
        StageError: it cannot be read to its end, naming what is wrong and the line.
    """
    if not path.is_file():
        raise StageError(f"{path} is a folder, where a file should be" if path.is_dir() else f"{path} cannot be read")
    title = f"prepare: {path.name}"
    with (
        readable(path),
        open(path, "rb") as raw,
        progress_bar(total=path.stat().st_size, desc=title, unit="B", unit_scale=True, leave=False) as progress,
    ):
        for number, (place, row) in enumerate(_parsed(opened(path, raw), path, data), start=1):
            yield place, row
            if number % 1000 == 0:
                progress.update(raw.tell() - progress.n)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a reader makes of a damaged file into one line.

    Raises:
        StageError: that line, which names the file.
    """
    try:
        yield
    except (StageError, MemoryError):
        raise
    except EOFError:
        raise StageError(f"{path} cannot be read: it ends in the middle; copy it again") from None
    except Exception as error:
        raise StageError(f"{path} cannot be read: {cause_of(error)}") from None


def opened(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """The bytes of a file, decompressed.

    Raises:
        StageError: it is empty, a pickle, or text in UTF-16.
    """
    stream = unpacked(path, raw)
    start = stream.peek(4)[:4]
    if not start:
        raise StageError(f"{path} cannot be read: it is empty")
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        raise StageError(f"{path} is a pickle, and opening one can run any code; export it as .jsonl, .csv or .parquet")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StageError(f"{path}: not UTF-8 but UTF-16; save it as UTF-8")
    return stream


def unpacked(path: Path, raw: IO[bytes]) -> Any:
    """The bytes of a file as a stream that has `peek`, decompressed where its name says so."""
    if path.suffix.lower() == ".gz":
        return gzip.open(raw)  # its file is closed by who opened it
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(pa.input_stream(raw, compression="zstd"))
    return raw


def _parsed(stream: IO[bytes], path: Path, data: DataSettings) -> Iterator[Numbered]:
    ending, limit = ending_of(path), longest_line(data)
    if ending in (".csv", ".tsv"):
        look = partial(_lines_anew, path, limit)
        yield from delimited(path, ending, look, _lines(stream, path, limit), data.last_column, limit, too_long(data))
        return
    refuse_numbers(str(path), data)
    if ending == ".parquet":
        yield from _parquet(stream, path)
    elif ending == ".json" and stream.peek(_BLOCK).removeprefix(_MARK).lstrip().startswith(b"["):  # type: ignore[attr-defined]
        yield from _json_list(stream, path)
    else:
        for number, line, is_whole in _lines(stream, path, limit):
            if not is_whole:
                yield number, f"a line of {too_long(data)}"
            elif line.strip():
                yield number, {"text": line} if ending == ".txt" else _object(_loaded(line.rstrip("\r\n"), path, number))


def _lines_anew(path: Path, limit: int) -> Iterator[Line]:
    with open(path, "rb") as raw:
        yield from _lines(opened(path, raw), path, limit)


_MARK = "\ufeff".encode()  # the byte-order mark, which is no letter of the text


def _lines(stream: Any, path: Path, limit: int) -> Iterator[Line]:
    """The lines of a text in UTF-8, in memory that does not grow with their length.

    Args:
        limit: bytes; a longer line is skipped, and told as such.

    Raises:
        StageError: a line is not UTF-8, or lines end in a way that is not known.
    """
    number = 0
    while line := stream.readline(limit):
        number += 1
        rest, quotes, is_whole = line, line.count(b'"'), True
        while not rest.endswith(b"\n") and (rest := stream.readline(_BLOCK)):
            is_whole = False
            quotes += rest.count(b'"')
        if number == 1 and b"\r" in line[:-2] and not stream.peek(1):
            raise StageError(f"{path}: its lines end in CR alone, as on old Macs; save it with LF at their ends")
        yield Line(number, decoded(line, path, number) if is_whole else '"' * (quotes % 2), is_whole)


def decoded(text: bytes, path: Path, line: int = 1) -> str:
    """Text from UTF-8, without the byte-order mark of a file's first line.

    Args:
        line: the number of its first line in the file.

    Raises:
        StageError: it is not UTF-8; the message names the line.
    """
    text = text.removeprefix(_MARK) if line == 1 else text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        column = error.start - text.rfind(b"\n", 0, error.start)
        raise StageError(
            f"{path}, line {line}: not UTF-8 (byte {text[error.start]:#04x} at column {column}); save it as UTF-8"
        ) from None


def _json_list(stream: IO[bytes], path: Path) -> Iterator[Numbered]:
    whole = decoded(_whole(stream, path, "write it as .jsonl, an object a line"), path)
    for number, row in enumerate(_loaded(whole, path, None), start=1):
        yield number, _object(row)


def _whole(stream: IO[bytes], path: Path, instead: str) -> bytes:
    whole = stream.read(LARGEST_WHOLE + 1)
    if len(whole) > LARGEST_WHOLE:
        raise StageError(f"{path}: more than {LARGEST_WHOLE} bytes, and this kind of file is read whole; {instead}")
    return whole


def _loaded(text: str, path: Path, line: int | None) -> Any:
    """What a line holds, or the whole file, where `line` is None."""
    where = f"{path}, line {line}" if line else str(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = "" if line else f", line {error.lineno}"
        raise StageError(
            f"{where}{at}: not JSON: {error.msg} at column {error.colno}; it should be an object a line"
            + (", or in .json a list of objects" if ending_of(path) == ".json" else "")
        ) from None
    except (RecursionError, ValueError) as error:  # nested without end; a number of thousands of digits
        raise StageError(f"{where}: not JSON that can be read: {cause_of(error)}; mend it or take it out") from None


def _object(value: Any) -> Row | str:
    kinds = {list: "a list", str: "a text", type(None): "null"}
    kind = kinds.get(type(value), f"a {type(value).__name__}")
    return value if isinstance(value, dict) else f"holds {kind}, not an object"


def _parquet(stream: IO[bytes], path: Path) -> Iterator[Numbered]:
    plain = path.suffix.lower() == ".parquet"
    table = pyarrow.parquet.ParquetFile(stream if plain else io.BytesIO(_whole(stream, path, "unpack it first")))
    refuse_twins(table.schema_arrow.names, path)
    groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    a_row = sum(group.total_byte_size for group in groups) // max(table.metadata.num_rows, 1)
    at_once = min(max(16 * _BLOCK // max(a_row, 1), 1), 1000)  # rows, so that long texts do not fill the memory
    rows = (row for batch in table.iter_batches(batch_size=at_once) for row in batch.to_pylist())
    yield from enumerate(rows, start=1)


def cause_of(error: BaseException) -> str:
    """What an error of a library's says, on one line."""
    said = getattr(error, "strerror", None) or str(error.__cause__ or error)
    return " ".join(said.split())[:300] or type(error).__name__
