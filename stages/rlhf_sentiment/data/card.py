"""Write the dataset card, and preview the tables on the terminal."""

from itertools import pairwise

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..engine.messages import escaped, visible
from ..engine.records import Row
from ..settings.data import DataSettings
from .leaks import texts_of
from .tables import Tables
from .text import words

_BINS = (0, 8, 16, 32, 64, 128, 256, 512, 1024)  # words
_SHOWN = 3
_CUT = 300  # characters of an example
# Columns that the examples leave out. The texts show the messages as a transcript.
_HIDDEN = ("split", "messages", "chosen_messages", "rejected_messages")


def card(tables: Tables, figures: Row, data: DataSettings) -> str:
    """Return a Markdown description of the data: source, licence, fates of the rows, counts, lengths and examples."""
    hub = f", revision {data.hub.revision}" if figures["source"] == data.hub.dataset else ""
    if data.source == "auto" and figures["source"] == "synthetic":
        hub = ", because the hub could not be reached"
    licence = data.licence or ("MIT, like this repository" if figures["source"] == "synthetic" else "unknown")
    made = "made from labels" if figures["shape"] in ("labelled", "grammar") else "given in the source"
    with_ties = any("ties" in fates for fates in figures["files"].values())
    files = {
        file: fates | ({"ties": 0} if with_ties and "ties" not in fates else {}) for file, fates in figures["files"].items()
    }
    lines = [
        "# The prepared data",
        "",
        f"- Source: {escaped(figures['source'] + hub)} ({figures['shape']})",
        f"- Licence: {escaped(licence)}",
        f"- Preferences: {made}, by {escaped(figures['preferred_for'])}",
        f"- Training pairs with exchanged sides (label noise): {figures['pairs']['flipped']}",
        f"- Labelled texts of the judge: {escaped(figures['judge_source'])}",
        "",
        "## Rows",
        "",
        "Each row of a file is counted once." + (" Rejected rows include ties." if with_ties else ""),
        "",
        f"| file | read | kept | rejected | duplicates | overlaps |{' ties |' if with_ties else ''}",
        f"|---|---:|---:|---:|---:|---:|{'---:|' if with_ties else ''}",
        *(f"| {escaped(file)} | {' | '.join(map(str, fates.values()))} |" for file, fates in files.items()),
        "",
        "## Tables",
        "",
        "The tables are made from the kept rows. A dropped row repeats a held-out text or nearly equals one, or the judge must",
        "not be trained on it.",
        "",
        "| table | split | rows | dropped |",
        "|---|---|---:|---:|",
    ]
    for name, splits in figures["splits"].items():
        for number, (split, count) in enumerate(splits.items()):
            lines.append(f"| {name} | {split} | {count} | {figures['dropped'][name] if number == 0 else ''} |")
    lines += ["", "## Lengths", "", "The number of texts (prompt and response) by their length in words.", ""]
    starts = [f"{low} to {high - 1}" for low, high in pairwise(_BINS)] + [f"{_BINS[-1]} and more"]
    lines += [f"| table | {' | '.join(starts)} | longest |", f"|---|{'---:|' * (len(starts) + 1)}"]
    for name, rows in tables.items():
        lengths = [len(words(text)) for row in rows for text in texts_of(row)[-2 if "chosen" in row else -1 :]]
        counts = [sum(low <= count < high for count in lengths) for low, high in zip(_BINS, (*_BINS[1:], 10**12), strict=True)]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} | {max(lengths, default=0)} |")
    lines += ["", "## Examples"]
    for name, split, part in examples(tables, _SHOWN):
        lines += ["", f"### {name}, {split}", ""]
        for row in part:
            cells = (f"{key}: {escaped(_cut(str(value)))}" for key, value in row.items() if key not in _HIDDEN)
            lines.append(f"- {'<br>'.join(cells)}")
    return "\n".join(lines) + "\n"


def preview(tables: Tables, count: int) -> None:
    """Show `count` rows of each table and split on the terminal."""
    console = Console()
    for name, split, rows in examples(tables, count):
        columns = [key for key in rows[0] if key not in _HIDDEN]
        table = Table(*columns, title=f"{name}, {split}", title_justify="left", show_lines=True, expand=True)
        for row in rows:
            table.add_row(*(Text(_lines(_cut(str(row.get(column, ""))))) for column in columns))
        console.print(table)


def examples(tables: Tables, count: int) -> list[tuple[str, str, list[Row]]]:
    """Return the first `count` rows of each table and split."""
    found = []
    for name, rows in tables.items():
        for split in ("train", "validation", "test"):
            if part := [row for row in rows if row["split"] == split][:count]:
                found.append((name, split, part))
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else text[:_CUT] + " ..."


def _lines(text: str) -> str:
    """Return `text` for a terminal, with its line breaks: a transcript has them before each turn."""
    return "\n".join(map(visible, text.split("\n")))
