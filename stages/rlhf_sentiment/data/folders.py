"""Read folders of texts, one folder per class and one file per text, as in the Large Movie Review Dataset (aclImdb).

    NAME/pos/0_9.txt  NAME/neg/0_3.txt                           classes
    NAME/train/pos/0_9.txt  NAME/test/neg/0_2.txt                splits above them
    NAME/train/unsup/0_0.txt                                     texts without a label, which are left out

The class is the label. The end of a file's name may be a rating, which becomes a column. The rating is used only if
`data.columns` sets the label to null. Text files beside the classes, such as lists of addresses, are left out.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..engine.errors import StageError
from ..engine.messages import one_line
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..settings.data import DataSettings
from .formats import (
    Numbered,
    decoded,
    ending_of,
    longest_line,
    readable,
    refuse_numbers,
    refuse_unprintable,
    too_long,
    unpacked,
)
from .splits import SPLITS, split_of_name

UNLABELLED = ("unsup", "unlabelled", "unlabeled", "unsupervised")
_TEXT = re.compile(r"(?!readme|\.).*\.txt(\.gz|\.zst)?", re.IGNORECASE | re.DOTALL)
_SILENT = re.compile(r"readme|\.", re.IGNORECASE)  # clearly not texts, so no message mentions them
_RATED = re.compile(r".*_(\d{1,3})")


def class_folders(path: Path) -> list[tuple[str, Path]]:
    """Return the folders that contain folders of classes, each with its split. The list may be empty.

    Raises:
        StageError: `path` contains both classes and splits, or files of rows beside them, or classes in a folder that is
            not a split; a split is there twice; a folder has fewer than two classes; a class contains folders or files of rows.
    """
    above = [folder for folder in _folders(path) if folder.name.lower() in SPLITS]
    if not any(map(_classes, above)):
        if not _classes(path):
            return []
        _refuse_others(path)
        return [("train", path)]
    _refuse_deeper(path)
    if own := _classes(path):
        raise StageError(
            f"{path} contains {above[0].name}/ and {own[0].name}/, both with texts; move one of them to another folder"
        )
    _refuse_rows(path)
    found: dict[str, Path] = {}
    for folder in above:
        _refuse_others(folder)
        other = found.setdefault(SPLITS[folder.name.lower()], folder)
        if other != folder:
            raise StageError(f"{path} contains {other.name}/ and {folder.name}/; keep one of them")
    return list(found.items())


def texts_by_class(folder: Path, data: DataSettings) -> Iterator[Numbered]:
    """Yield the texts of a folder's classes as rows of `text`, `label` and, if the file's name has one, `rating`.

    Raises:
        StageError: a text cannot be read, or is not UTF-8.
    """
    refuse_numbers(str(folder), data)
    names = [(one.name, name) for one in _classes(folder) for name in texts_in(one)]
    for label, name in progress_bar(names, desc=f"prepare: {folder.name}", unit=" texts", leave=False):
        text = _text(folder / label / name, data)
        rated = _RATED.fullmatch(name.partition(".")[0])
        row: Row = {"text": text, "label": label} | ({"rating": int(rated[1])} if rated else {})
        yield f"{label}/{name}", row if text is not None else f"a text {too_long(data)}"


def loose_texts(folder: Path, data: DataSettings) -> Iterator[Numbered]:
    """Yield the texts of a folder without classes as rows of `text`.

    Raises:
        StageError: a text cannot be read, or is not UTF-8.
    """
    for name in progress_bar(texts_in(folder), desc=f"prepare: {folder.name}", unit=" texts", leave=False):
        text = _text(folder / name, data)
        yield name, {"text": text} if text is not None else f"a text {too_long(data)}"


def _text(path: Path, data: DataSettings) -> str | None:
    """Return a whole file, or None if it is too long."""
    with readable(path), open(path, "rb") as raw:
        whole = unpacked(path, raw).read(longest_line(data) + 1)
        return decoded(whole, path) if len(whole) <= longest_line(data) else None


def texts_in(folder: Path) -> list[str]:
    """Return the names of the texts in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(one.name for one in entries if _TEXT.fullmatch(one.name))


def _others_in(folder: Path) -> int:
    """Count the files of a class that are not texts, without README and hidden files."""
    with os.scandir(folder) as entries:
        return sum(one.is_file() and not _TEXT.fullmatch(one.name) and not _SILENT.match(one.name) for one in entries)


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder, without those that programs leave behind, such as __MACOSX."""
    with os.scandir(path) as entries:
        return sorted(Path(one.path) for one in entries if one.is_dir() and not one.name.startswith((".", "__")))


def _classes(path: Path) -> list[Path]:
    """Return the folders in a folder that contain texts, without splits and unlabelled texts."""
    others = {*SPLITS, *UNLABELLED}
    return [folder for folder in _folders(path) if folder.name.lower() not in others and texts_in(folder)]


def _refuse_rows(path: Path) -> None:
    """Refuse files of rows beside folders of texts, since only one of the two would be read."""
    for one in sorted(path.iterdir()):
        if ending_of(one) and one.is_file() and (ending_of(one) != ".txt" or split_of_name(one)):
            raise StageError(f"{path} contains {one.name} and folders of texts; keep one of them")


def _refuse_deeper(path: Path) -> None:
    """Refuse classes in a folder that is not a split, since they would not be read."""
    for folder in _folders(path):
        if folder.name.lower() not in SPLITS and _classes(folder) and not texts_in(folder):
            raise StageError(
                f"{folder} contains classes, but its name is not a split ({', '.join(SPLITS)}); rename it, or move it out of "
                f"{path}"
            )


def _refuse_others(path: Path) -> None:
    """Refuse a folder that contains more than classes, and print the files that are left out."""
    classes = _classes(path)
    if len(classes) < 2:
        there = f"only one class ({classes[0].name}/)" if classes else "no classes"
        raise StageError(f"{path} contains {there}; make a folder of .txt files for each class, such as pos/ and neg/")
    _refuse_rows(path)
    _refuse_deeper(path)
    for folder in classes:
        _refuse_rows(folder)
        with os.scandir(folder) as entries:
            for one in entries:
                refuse_unprintable(Path(one.path))
                if one.is_dir() and not one.name.startswith("."):
                    raise StageError(f"{one.path} is a folder inside a class; move its texts to {folder}")
                if _TEXT.fullmatch(one.name) and not one.is_file():
                    raise StageError(f"{one.path} cannot be read: it is a link to a file that does not exist")
    left = [
        f"{one.name}/ ({len(texts_in(one))} texts without a label, which can be used as data.corpus)"
        for one in _folders(path)
        if one not in classes and texts_in(one)
    ]
    others = {one: _others_in(one) for one in _folders(path) if one in classes or not texts_in(one)}
    left += [f"{count} files in {one.name}/ that are not .txt" for one, count in others.items() if count]
    left += [one.name for one in sorted(path.iterdir()) if one.is_file() and _TEXT.fullmatch(one.name)]
    if left:
        print(one_line(f"prepare: {path}: left out: {', '.join(left)}"), file=sys.stderr)
