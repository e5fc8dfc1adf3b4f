"""The rows of the files that people bring: JSON lines, JSON, CSV, TSV, Parquet and plain text, each also .gz or .zst.

A file is read as a stream, so that its size does not matter (a list in .json and a compressed .parquet are read whole),
and never unpickled. A row that is no row (a JSON line
that holds a number, a CSV line with too many fields) is told as such and costs only itself; a file that is damaged stops
the reading, and the message names the line.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple
from unicodedata import category

import pyarrow as pa
import pyarrow.parquet
from datasets import disable_progress_bars, load_dataset, logging

from .messages import one_line, shown
from .progress import progress_bar
from .records import Row
from .run import StageError
from .settings.data import HubSettings

# A row's number in its file, from 1, and what it holds: the row, or why it is none.
Numbered = tuple[int, Row | str]
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}


class File(NamedTuple):
    """A file, or a split of a hub data set: what messages call it, the split it is, and its rows when they are asked for."""

    name: str
    split: str
    rows: Callable[[], Iterator[Numbered]]


def files_at(source: str, setting: str) -> list[File]:
    """The files of a folder, a file or a glob below data/raw, in the order train, validation, test.

    A folder has one train.* and at most one validation.* and test.*; of a glob, a file whose name begins with one of these
    is of that split, and every other is of train. A file alone is of train.

    Args:
        setting: the setting that names the source, for messages.

    Raises:
        StageError: there is none, or a data file that would go unread in silence, or no train file.
    """
    path = Path(source)
    if any(letter in source for letter in "*?[") and not path.exists():
        try:
            found = sorted(one for one in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if ending_of(one))
        except ValueError as error:
            raise StageError(f"{setting} {source} is no glob: {error}") from None
        if not found:
            raise StageError(f"{setting} {source} matches no file ({', '.join(ENDINGS)}, each also .gz or .zst)")
        splits = [split_of_name(one) or "train" for one in found]
    elif path.is_dir():
        unknown = sorted(one for one in path.iterdir() if split_of_name(one) and not ending_of(one))
        if unknown:
            raise StageError(f"{unknown[0]} is none of {', '.join(ENDINGS)} (each also .gz or .zst); nothing else is read")
        found = sorted(one for one in path.iterdir() if ending_of(one))
        splits = []
        for one in found:
            split = split_of_name(one) if re.fullmatch(r"[a-z]+", one.name.split(".")[0]) else None
            if split is None or one.name.count(".") - one.name.endswith((".gz", ".zst")) != 1:
                raise StageError(
                    f"{one} is no file train.*, validation.* or test.*; rename it, move it out of {path}, or name a glob such "
                    f"as {path}/*{''.join(one.suffixes[-2:])}"
                )
            if split in splits:
                raise StageError(
                    f"{path} holds {found[splits.index(split)].name} and {one.name}; keep one of them, or name a glob"
                )
            splits.append(split)
    else:
        if not path.exists():
            raise StageError(f"{path} is missing; put it there, or set {setting} to what is there")
        if not ending_of(path):
            raise StageError(f"{path} is none of {', '.join(ENDINGS)} (each also .gz or .zst); nothing else is read")
        found, splits = [path], ["train"]
    for one in found:
        if any(category(letter) in ("Cc", "Cs") for letter in str(one)):  # control characters, bytes that are not UTF-8
            raise StageError(f"{shown(str(one))} has a name that cannot be printed; rename it")
    files = [File(str(one), split, partial(rows_of, one)) for one, split in zip(found, splits, strict=True)]
    if "train" not in splits:
        raise StageError(f"{source} holds no train.* ({', '.join(ENDINGS)}, each also .gz or .zst)")
    return sorted(files, key=lambda file: list(SPLITS).index(file.split))


def ending_of(path: Path) -> str | None:
    """The ending that says how a file is read, without that of its compression; None where there is no such."""
    ending = Path(re.sub(r"\.(gz|zst)$", "", path.name.lower())).suffix
    return ending if ending in ENDINGS else None


def split_of_name(path: Path) -> str | None:
    """The split that a file's name begins with, as in test.csv or train-00000-of-00002.parquet."""
    word = re.match(r"[a-z]*", path.name.lower())
    return SPLITS.get(word[0]) if word else None


def rows_of(path: Path) -> Iterator[Numbered]:
    """The rows of one file, with a progress bar over its bytes.

    Raises:
        StageError: it cannot be read to its end, naming what is wrong and the line.
    """
    if not path.is_file():
        raise StageError(f"{path} is a folder, where a file should be" if path.is_dir() else f"{path} cannot be read")
    try:
        with (
            open(path, "rb") as raw,
            progress_bar(
                total=path.stat().st_size, desc=one_line(f"prepare: {path.name}"), unit="B", unit_scale=True, leave=False
            ) as progress,
        ):
            for number, row in _parsed(_opened(path, raw), path):
                yield number, row
                if number % 1000 == 0:
                    progress.update(raw.tell() - progress.n)
    except StageError:
        raise
    except EOFError:
        raise StageError(f"{path} cannot be read: it ends in the middle; copy it again") from None
    except Exception as error:  # whatever a reader makes of a damaged file
        raise StageError(f"{path} cannot be read: {cause_of(error)}") from None


def _opened(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """The bytes of a file, decompressed.

    Raises:
        StageError: it is empty, a pickle, or text in UTF-16.
    """
    stream: Any = raw
    if path.suffix.lower() == ".gz":
        stream = gzip.open(raw)  # noqa: SIM115 (its file is closed by who opened it)
    elif path.suffix.lower() == ".zst":
        stream = io.BufferedReader(pa.input_stream(raw, compression="zstd"))
    start = stream.peek(4)[:4]
    if not start:
        raise StageError(f"{path} cannot be read: it is empty")
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        raise StageError(f"{path} is a pickle, and opening one can run any code; export it as .jsonl, .csv or .parquet")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise StageError(f"{path}: not UTF-8 but UTF-16; save it as UTF-8")
    return stream


def _parsed(stream: IO[bytes], path: Path) -> Iterator[Numbered]:
    ending = ending_of(path)
    if ending == ".parquet":
        table = pyarrow.parquet.ParquetFile(stream if path.suffix == ".parquet" else io.BytesIO(stream.read()))
        _refuse_twins(table.schema_arrow.names, path)
        rows = (row for batch in table.iter_batches(batch_size=1000) for row in batch.to_pylist())
        yield from enumerate(rows, start=1)
    elif ending == ".json":
        yield from _json(stream, path)
    elif ending == ".jsonl":
        yield from _json_lines(_lines(stream, path), path)
    elif ending == ".txt":
        yield from ((number, {"text": line}) for number, line in _lines(stream, path) if line.strip())
    else:
        yield from _table(stream, path, "," if ending == ".csv" else "\t")


def _lines(stream: IO[bytes], path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text in UTF-8, each with its number and its end; a byte-order mark is left out."""
    for number, line in enumerate(stream, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise StageError(
                f"{path}, line {number}: not UTF-8 (byte {error.object[error.start]:#04x} at column {error.start + 1}); "
                "save it as UTF-8"
            ) from None


def _json_lines(lines: Iterator[tuple[int, str]], path: Path) -> Iterator[Numbered]:
    for number, line in lines:
        if line.strip():
            row = _loaded(line.rstrip("\r\n"), f"{path}, line {number}", at_line=False)
            yield number, row if isinstance(row, dict) else f"holds {_kind(row)}, not an object"


def _json(stream: IO[bytes], path: Path) -> Iterator[Numbered]:
    """A list of objects; or JSON lines, which some call .json too."""
    lines = list(_lines(stream, path))
    if not "".join(line for _, line in lines[:100]).lstrip().startswith("["):
        yield from _json_lines(iter(lines), path)
        return
    for number, row in enumerate(_loaded("".join(line for _, line in lines), str(path), at_line=True), start=1):
        yield number, row if isinstance(row, dict) else f"holds {_kind(row)}, not an object"


def _loaded(text: str, where: str, at_line: bool) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if at_line else ""
        raise StageError(
            f"{where}{line}: not JSON: {error.msg} at column {error.colno}; it should be an object a line"
            + (", or in .json a list of objects" if where.split(",")[0].endswith(".json") else "")
        ) from None
    except (RecursionError, ValueError) as error:  # nested without end; a number of thousands of digits
        raise StageError(f"{where}: not JSON that can be read: {cause_of(error)}; mend it or take it out") from None


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), f"a {type(value).__name__}")


def _table(stream: IO[bytes], path: Path, delimiter: str) -> Iterator[Numbered]:
    csv.field_size_limit(2**31 - 1)  # data.max_characters is the limit
    reader = csv.DictReader((line for _, line in _lines(stream, path)), delimiter=delimiter, strict=True)
    try:
        _refuse_twins(reader.fieldnames or [], path)
        for number, row in enumerate(reader, start=1):
            fields = len(reader.fieldnames or ())
            if None in row:
                yield number, f"has {fields + len(row[None])} fields, where the first line has {fields}"
            elif None in row.values():
                yield (
                    number,
                    f"has {sum(value is not None for value in row.values())} fields, where the first line has {fields}",
                )
            else:
                yield number, row
    except csv.Error as error:
        raise StageError(f"{path}, line {reader.reader.line_num}: not {str(ending_of(path))[1:].upper()}: {error}") from None


def _refuse_twins(names: Sequence[str], path: Path) -> None:
    """Refuse two columns of one name, of which one would be lost in silence."""
    twins = [name for number, name in enumerate(names) if name in names[:number]]
    if twins:
        raise StageError(f"{path}: two columns are called {shown(twins[0])}; rename one of them")


def hub_files(hub: HubSettings, setting: str) -> list[File]:
    """The splits of a hub data set, or of a local folder that `datasets` loads in the same way.

    Raises:
        StageError: it cannot be reached or read, would run code of its own, or has no such split.
    """
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is said once, here
    splits = {name: getattr(hub, name) for name in ("train", "validation", "test")}
    files = []
    for name, split in splits.items():
        if split is None:
            continue
        try:
            table = load_dataset(hub.dataset, hub.config, data_dir=hub.folder, revision=hub.revision, split=split)
        except Exception as error:  # whatever stands between us and the hub
            if "scripts are no longer supported" in str(error):
                raise StageError(
                    f"{setting} {hub.dataset} has a script of its own, which would run here with all your rights: refused; "
                    "try the revision refs/convert/parquet, which the hub makes of such data sets"
                ) from None
            raise StageError(f"{setting} {hub.dataset}, split {split}, cannot be read: {cause_of(error)}") from None
        files.append(File(f"{hub.dataset}, {name}", name, partial(_with_bar, table, f"prepare: {hub.dataset}, {name}")))
    return files


def _with_bar(table: Iterable[Row], title: str) -> Iterator[Numbered]:
    try:
        yield from enumerate(progress_bar(table, desc=title, unit=" rows", leave=False), start=1)
    except Exception as error:  # whatever stands in a column
        raise StageError(f"{title.removeprefix('prepare: ')} cannot be read: {cause_of(error)}") from None


def cause_of(error: BaseException) -> str:
    """What an error of a library's says, on one line."""
    said = getattr(error, "strerror", None) or str(error.__cause__ or error)
    return " ".join(said.split())[:300] or "it is empty"
