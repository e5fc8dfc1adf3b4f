"""Find the files of a source and the split of each: data files, folders of texts, and hub data sets."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset, config, disable_progress_bars, load_dataset, logging

from ..engine.errors import StageError
from ..engine.hub import LOCAL, UnreachableError, ask, silent
from ..engine.inputs import whence
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..settings.data import DataSettings, HubSettings
from .folders import class_folders, loose_texts, texts_by_class, texts_in
from .formats import ENDINGS, Numbered, cause_of, ending_of, refuse_unprintable, rows_of
from .splits import SPLITS, looks_held_out, split_of_name

_COMMIT = re.compile(r"[0-9a-f]{40}")


class File(NamedTuple):
    """A file, a folder of texts, or a split of a hub data set.

    Attributes:
        name: the name in messages.
        split: train, validation or test.
        rows: reads the rows one by one. The settings decide whether columns have names, and which texts are too long.
    """

    name: str
    split: str
    rows: Callable[[DataSettings], Iterator[Numbered]]


def files_at(source: str, setting: str) -> list[File]:
    """Return the files of a folder, a file or a glob below data/raw, in the order train, validation, test.

    A folder has one of these contents:

    - one train.*, and at most one validation.* and one test.*;
    - folders of texts by class;
    - for `data.corpus`, texts alone.

    In a glob, a file whose name begins with a split (a key of SPLITS) belongs to that split. Every other file belongs to train,
    but a file whose name looks held out is refused. A single file belongs to train.

    Args:
        source: a path or a glob.
        setting: the setting that names the source, for messages.

    Raises:
        StageError: there is no file, no train file, or a data file that would be ignored; or a file of a glob looks held out,
            and its name does not begin with a split.
    """
    path = Path(source)
    if any(letter in source for letter in "*?[") and not path.exists():
        files = _of_glob(path, setting)
    elif path.is_dir():
        folders = class_folders(path)
        if folders:
            files = [File(str(folder), split, partial(texts_by_class, folder)) for split, folder in folders]
        elif setting == "data.corpus" and _is_of_texts(path):
            files = [File(str(path), "train", partial(loose_texts, path))]
        else:
            files = _of_folder(path)
    else:
        if not path.exists():
            raise StageError(f"{path} is missing; put it there, or set {setting} to another path{whence(path)}")
        if not ending_of(path):
            raise StageError(f"{path} has an unknown ending; use {', '.join(ENDINGS)} (each also .gz or .zst)")
        files = [_file(path, "train")]
    for file in files:
        refuse_unprintable(Path(file.name))
    if not any(file.split == "train" for file in files):
        raise StageError(
            f"{source} contains no train.* ({', '.join(ENDINGS)}, each also .gz or .zst), and no folders of .txt files by "
            "class (such as pos/ and neg/, or train/pos/ and train/neg/)"
        )
    return sorted(files, key=lambda file: list(SPLITS).index(file.split))


def _file(path: Path, split: str) -> File:
    return File(str(path), split, partial(rows_of, path))


def _of_glob(path: Path, setting: str) -> list[File]:
    try:
        found = sorted(one for one in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if ending_of(one))
    except ValueError as error:
        raise StageError(f"{setting} {path} is not a glob: {error}") from None
    if not found:
        raise StageError(f"{setting} {path} matches no file ({', '.join(ENDINGS)}, each also .gz or .zst)")
    fixed = len(list(itertools.takewhile(lambda part: not re.search(r"[*?[]", part), path.parts)))
    for one in found:
        if not split_of_name(one) and looks_held_out("/".join(one.parts[fixed:])):
            raise StageError(
                f"{one} looks held out, but would be used for training; rename it to test-{one.name} or validation-{one.name}, "
                f"or move it to a place that {setting} does not match"
            )
    return [_file(one, split_of_name(one) or "train") for one in found]


def _of_folder(path: Path) -> list[File]:
    """Return the files train.*, validation.* and test.* of a folder."""
    unknown = sorted(
        one
        for one in path.iterdir()
        if (split_of_name(one) or (one.is_dir() and looks_held_out(one.name))) and not ending_of(one) and one.suffix != ".dvc"
    )
    if unknown:
        if unknown[0].is_dir():
            raise StageError(f"{unknown[0]} contains no folder of texts for each class, such as pos/ and neg/")
        raise StageError(f"{unknown[0]} has an unknown ending; use {', '.join(ENDINGS)} (each also .gz or .zst)")
    if _is_of_texts(path):
        raise StageError(
            f"{path} contains texts without labels, which only data.corpus accepts; name the folder above the classes"
        )
    files: list[File] = []
    for one in sorted(one for one in path.iterdir() if ending_of(one)):
        split = split_of_name(one) if re.fullmatch(r"[a-z]+", one.name.split(".")[0]) else None
        if split is None or one.name.count(".") - one.name.endswith((".gz", ".zst")) != 1:
            glob = f"name a glob such as {path}/*{''.join(one.suffixes[-2:])}"
            if not split_of_name(one) and looks_held_out(one.name):
                glob = "call it test.* if it is held out"
            raise StageError(f"{one} is not train.*, validation.* or test.*; rename it, move it out of {path}, or {glob}")
        twin = next((file for file in files if file.split == split), None)
        if twin:
            raise StageError(f"{path} contains {Path(twin.name).name} and {one.name}; keep one of them, or name a glob")
        files.append(_file(one, split))
    return files


def _is_of_texts(path: Path) -> bool:
    """Return whether a folder contains only texts, two or more, and none of them is called like a split."""
    rows = [one for one in path.iterdir() if ending_of(one)]
    return len(texts_in(path)) > 1 and all(ending_of(one) == ".txt" and not split_of_name(one) for one in rows)


def hub_files(hub: HubSettings, setting: str) -> list[File]:
    """Return the splits of a hub data set, or of a local folder that `datasets` loads in the same way.

    Raises:
        UnreachableError: the hub does not answer, and the cache does not have the data set.
        StageError: the data set does not exist, needs a login or code of its own, lacks a split, or cannot be read.
    """
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # errors are reported once, here
    config.HF_UPDATE_DOWNLOAD_COUNTS = False  # another server counts, which may not answer
    if on_hub := not Path(str(hub.dataset)).is_dir():
        ask("dataset", str(hub.dataset), hub.revision, f"{setting} {hub.dataset}")
    splits = {name: getattr(hub, name) for name in ("train", "validation", "test")}
    files = []
    for name, split in splits.items():
        if split is None:
            continue
        try:
            table = load_dataset(hub.dataset, hub.config, data_dir=hub.folder, revision=hub.revision, split=split)
            if on_hub and silent() and _COMMIT.fullmatch(str(hub.revision)) and not _is_of(table, str(hub.revision)):
                raise FileNotFoundError  # `datasets` takes any revision in the cache
        except Exception as error:  # any fault of the network, the hub or the data set
            if on_hub and (why := silent()):
                raise UnreachableError(
                    f"{setting} {hub.dataset} cannot be read: it is not in the cache, and {why}; data.source auto falls back "
                    f"to synthetic texts, and {LOCAL}"
                ) from None
            if "scripts are no longer supported" in str(error):
                raise StageError(
                    f"{setting} {hub.dataset} is refused, because its own script would run here with all your rights; "
                    "try the revision refs/convert/parquet, which the hub makes for such data sets"
                ) from None
            raise StageError(f"{setting} {hub.dataset}, split {split}, cannot be read: {cause_of(error)}") from None
        files.append(File(f"{hub.dataset}, {name}", name, partial(_with_bar, table, f"prepare: {hub.dataset}, {name}")))
    return files


def _is_of(table: Dataset, commit: str) -> bool:
    """Return whether a table in the cache is of this commit, which is the name of its folder."""
    return all(commit in Path(file["filename"]).parts for file in table.cache_files)


def _with_bar(table: Iterable[Row], title: str, data: DataSettings) -> Iterator[Numbered]:
    try:
        yield from enumerate(progress_bar(table, desc=title, unit=" rows", leave=False), start=1)
    except Exception as error:  # any fault of a column's values
        raise StageError(f"{title.removeprefix('prepare: ')} cannot be read: {cause_of(error)}") from None
