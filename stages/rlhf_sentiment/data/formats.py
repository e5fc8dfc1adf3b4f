"""Read the rows of one file: JSON lines, JSON, CSV, TSV, Parquet and plain text, each also .gz or .zst.

A file is read as a stream, so it may be larger than the memory. Only a .json that is one list or one object, and a compressed
.parquet, are read whole, up to `LARGEST_WHOLE`. No file is unpickled. An unusable row is rejected, and the reading goes on.
Examples are a JSON line that holds a number, a CSV line with too many fields, and a line that is too long. A damaged file stops
the reading, and the message names the line.
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
from .json_objects import rows_in

# The place of a row in its file (a number from 1, or the name of its text), and the row or the reason why it cannot be used. A
# reason is its kind, and then the row's own values in parentheses.
Numbered = tuple[int | str, Row | str]
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
LARGEST_WHOLE = 2**28  # bytes, for a file that cannot be read as a stream
_BLOCK = 2**20  # bytes


def ending_of(path: Path) -> str | None:
    """Return the ending of a file without that of its compression, or None if it is none of `ENDINGS`."""
    ending = Path(re.sub(r"\.(gz|zst)$", "", path.name.lower())).suffix
    return ending if ending in ENDINGS else None


def refuse_unprintable(path: Path) -> None:
    """Refuse a name with control characters, or with bytes that are not UTF-8.

    Raises:
        StageError: the name has such characters or bytes.
    """
    if any(category(letter) in ("Cc", "Cs") for letter in str(path)):
        raise StageError(f"{shown(str(path))} has a name that cannot be printed; rename it")


def longest_line(data: DataSettings) -> int:
    """Return the length in bytes of the longest line, field or text that is read.

    A line has room for several escaped texts of `data.max_characters`.
    """
    return max(2**20, 32 * data.max_characters)


def too_long(data: DataSettings) -> str:
    """Return the reason why a long line, field or text is not a row, without its subject."""
    return f"is too long (more than {longest_line(data)} bytes; raise data.max_characters)"


def refuse_numbers(name: str, data: DataSettings) -> None:
    """Refuse numbers in `data.columns` for a file whose columns have names.

    Raises:
        StageError: `data.columns` has numbers.
    """
    if data.last_column:
        raise StageError(
            f"{name}: data.columns has numbers, which work only for .csv and .tsv without a header; use the columns' names"
        )


def rows_of(path: Path, data: DataSettings) -> Iterator[Numbered]:
    """Yield the rows of one file, with a progress bar over its bytes.

    Raises:
        StageError: the file cannot be read to its end. The message names the fault and the line.
    """
    if not path.is_file():
        raise StageError(f"{path} should be a file, but is a folder" if path.is_dir() else f"{path} cannot be read")
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
    """Turn any error from reading a damaged file into one line.

    Raises:
        StageError: the line, which names the file.
    """
    try:
        yield
    except (StageError, MemoryError):
        raise
    except EOFError:
        raise StageError(f"{path} cannot be read: it is incomplete; copy it again") from None
    except Exception as error:
        raise StageError(f"{path} cannot be read: {cause_of(error)}") from None


def opened(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """Open the bytes of a file, decompressed.

    Raises:
        StageError: the file is empty, a pickle, or text in UTF-16.
    """
    stream = unpacked(path, raw)
    start = stream.peek(4)[:4]
    if not start:
        raise StageError(f"{path} cannot be read: it is empty")
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        raise StageError(f"{path} is a pickle, which can run any code when it is opened; export it as .jsonl, .csv or .parquet")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StageError(f"{path}: not UTF-8 but UTF-16; save it as UTF-8")
    return stream


def unpacked(path: Path, raw: IO[bytes]) -> Any:
    """Return the bytes of a file as a stream with `peek`, decompressed if its name ends in .gz or .zst."""
    if path.suffix.lower() == ".gz":
        return gzip.open(raw)  # the caller closes `raw`
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(pa.input_stream(raw, compression="zstd"))
    return raw


def _parsed(stream: IO[bytes], path: Path, data: DataSettings) -> Iterator[Numbered]:
    ending, limit = ending_of(path), longest_line(data)
    if ending in (".csv", ".tsv"):
        look = partial(_lines_from_start, path, limit)
        yield from delimited(path, ending, look, _lines(stream, path, limit), data.last_column, limit, too_long(data))
        return
    refuse_numbers(str(path), data)
    if ending == ".parquet":
        yield from _parquet(stream, path)
    elif ending == ".json" and _is_one_value(stream, path, limit):
        yield from _json_value(stream, path)
    else:
        for number, line, is_whole in _lines(stream, path, limit):
            if not is_whole:
                yield number, f"a line {too_long(data)}"
            elif line.strip():
                yield number, {"text": line} if ending == ".txt" else _object(_loaded(line.rstrip("\r\n"), path, number))


def _lines_from_start(path: Path, limit: int) -> Iterator[Line]:
    with open(path, "rb") as raw:
        yield from _lines(opened(path, raw), path, limit)


_MARK = "\ufeff".encode()  # the byte-order mark, which is not part of the text


def _lines(stream: Any, path: Path, limit: int) -> Iterator[Line]:
    """Yield the lines of a text in UTF-8, in memory that does not grow with their length.

    Args:
        stream: the bytes of the file, with `peek`.
        path: the file, for messages.
        limit: bytes. A longer line is skipped, and marked as not whole.

    Raises:
        StageError: a line is not UTF-8, or the lines end in CR alone.
    """
    number = 0
    while line := stream.readline(limit):
        number += 1
        rest, quotes, is_whole = line, line.count(b'"'), True
        while not rest.endswith(b"\n") and (rest := stream.readline(_BLOCK)):
            is_whole = False
            quotes += rest.count(b'"')
        if number == 1 and b"\r" in line[:-2] and not stream.peek(1):
            raise StageError(f"{path}: the lines end in CR without LF; save the file with LF line ends")
        yield Line(number, decoded(line, path, number) if is_whole else '"' * (quotes % 2), is_whole)


def decoded(text: bytes, path: Path, line: int = 1) -> str:
    """Decode text from UTF-8, without the byte-order mark of a file's first line.

    Args:
        text: some bytes of the file.
        path: the file, for messages.
        line: the number in the file of the first line of `text`.

    Raises:
        StageError: the text is not UTF-8. The message names the line.
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


def _is_one_value(stream: Any, path: Path, limit: int) -> bool:
    """Return whether a .json file is one list or one object, and not JSON lines. At most two lines are read."""
    start = stream.peek(_BLOCK).removeprefix(_MARK).lstrip()[:1]
    if start != b"{":
        return start == b"["
    lines = (line for line in _lines_from_start(path, limit) if line.text.strip() or not line.is_whole)
    first, second = next(lines), next(lines, None)
    if second is None:
        return True
    try:
        if first.is_whole:
            json.loads(first.text)
    except json.JSONDecodeError:
        return True
    except (RecursionError, ValueError):  # as `_loaded` will report for this line
        pass
    return False


def _json_value(stream: IO[bytes], path: Path) -> Iterator[Numbered]:
    value = _loaded(decoded(_whole(stream, path, "save it as .jsonl, with one object per line"), path), path, None)
    for number, row in enumerate(rows_in(value, path) if isinstance(value, dict) else value, start=1):
        yield number, _object(row)


def _whole(stream: IO[bytes], path: Path, instead: str) -> bytes:
    whole = stream.read(LARGEST_WHOLE + 1)
    if len(whole) > LARGEST_WHOLE:
        raise StageError(f"{path}: more than {LARGEST_WHOLE} bytes, but this format is read into memory as a whole; {instead}")
    return whole


def _loaded(text: str, path: Path, line: int | None) -> Any:
    """Parse the JSON of a line, or of the whole file if `line` is None."""
    where = f"{path}, line {line}" if line else str(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = "" if line else f", line {error.lineno}"
        raise StageError(
            f"{where}{at}: not JSON: {error.msg} at column {error.colno}; each line should be an object"
            + (", or the whole .json file a list of objects" if ending_of(path) == ".json" else "")
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise StageError(f"{where}: JSON that cannot be read: {cause_of(error)}; correct it, or leave it out") from None


def _object(value: Any) -> Row | str:
    kinds = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return value if isinstance(value, dict) else f"{kinds.get(type(value), 'a number')} instead of an object"


def _parquet(stream: IO[bytes], path: Path) -> Iterator[Numbered]:
    plain = path.suffix.lower() == ".parquet"
    table = pyarrow.parquet.ParquetFile(stream if plain else io.BytesIO(_whole(stream, path, "unpack it first")))
    refuse_twins(table.schema_arrow.names, path)
    groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
    a_row = sum(group.total_byte_size for group in groups) // max(table.metadata.num_rows, 1)
    at_once = min(max(16 * _BLOCK // max(a_row, 1), 1), 1000)  # rows: few long ones, so that they do not fill the memory
    rows = (row for batch in table.iter_batches(batch_size=at_once) for row in batch.to_pylist())
    yield from enumerate(rows, start=1)


def cause_of(error: BaseException) -> str:
    """Return the message of a library's error on one line."""
    said = getattr(error, "strerror", None) or str(error.__cause__ or error)
    return " ".join(said.split())[:300] or type(error).__name__
