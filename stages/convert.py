"""Convert: write a complete file of settings from an old file, or from a file that extends another.

    python stages/convert.py old.yaml --out NEW.yaml
    python stages/convert.py profiles/imdb-local.yaml --out params.yaml --force

An old file has flat keys, such as `batch_size: 16`. The settings that it does not name come from params.yaml, or from the file
that its key `extends` names. The output keeps the comments of that file. An existing file is replaced only with --force, and
its old content stays as NAME.old.
"""

from rlhf_sentiment.engine.start import one_line_errors  # isort: split

import argparse
from os.path import isdir, isfile, lexists
from pathlib import Path

from rlhf_sentiment.engine.messages import Parser


def command_line() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = Parser(prog="python stages/convert.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="a file of settings: old, complete, or with `extends`")
    parser.add_argument("--out", type=Path, required=True, metavar="NEW", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file; its content stays as NEW.old")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not isdir(out.parent) or (lexists(out) and not isfile(out)):
        parser.error(f"--out: {out} cannot be written; name a file in a folder that exists")
    if lexists(out) and not arguments.force:
        parser.error(f"--out: {out} exists; name a new file, or add --force to replace it")
    return arguments


if __name__ == "__main__":
    asked = command_line()

import copy
import re
import shutil
from typing import Any

from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.messages import one_line, shown, warn
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.params import explained, extended, merged, read_yaml
from rlhf_sentiment.engine.renamed import is_old
from rlhf_sentiment.engine.trackers import fault_of
from rlhf_sentiment.settings.edit import differences, edited
from rlhf_sentiment.settings.old import modern
from rlhf_sentiment.settings.whole import Params

PARAMS = Path("params.yaml")


def main(arguments: argparse.Namespace) -> None:
    """Write the file."""
    out: Path = arguments.out
    with one_line_errors("convert"):
        text, said = converted(arguments.file)
        for line in said:
            print(one_line(f"convert: {line}"))
        kept = keep(out) if lexists(out) and out.read_bytes() != text.encode() else ""
        with writing(out) as aside:
            aside.write_text(text, encoding="utf-8")
        print(one_line(f"convert: wrote {out}{kept}"))


def converted(path: Path) -> tuple[str, list[str]]:
    """Return the text of a complete file with the settings of `path`, and what was assumed.

    Raises:
        ConfigError: one line for each fault.
    """
    old = read_yaml(path)
    if is_old(old):
        return of_old(path, old)
    text, _, said = complete(path)
    return text, said


def complete(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """Return a file of settings with those of the files that it extends: text, tree, and a line for each value of its own."""
    files = extended(path, Params, by_dvc=False)
    base, new = files[-1], merged(files, Params)
    with explained(Params, path, files):
        Params.model_validate(new)
    changes = differences(base[1], new)
    text = base[0].read_text(encoding="utf-8-sig")
    said = [f"{path}: {key} is {shown(now)}, not {shown(before)} as in {base[0]}" for key, (before, now) in changes.items()]
    return edited(text, changes) if changes else text, new, said


def of_old(path: Path, old: dict[str, Any]) -> tuple[str, list[str]]:
    """Return what `converted` returns, for a file with the keys of an old version."""
    below = path.parent / str(old.pop("extends")) if "extends" in old else PARAMS
    text, base, _ = complete(below)
    done = modern(old, base)
    new = copy.deepcopy(base)
    for key, value in done.values.items():
        *sections, last = key.split(".")
        inner = new
        for section in sections:
            inner = inner[section]
        inner[last] = value
    faults = [f"{path}: {fault}" for fault in done.faults]
    try:
        with explained(Params, path):
            trackers = Params.model_validate(new).report_to
    except ConfigError as error:
        for line in str(error).splitlines():
            fault = line.removeprefix(f"{path}: ")
            names = dict.fromkeys(name for key, name in done.sources.items() if re.search(rf"(?<![.\w]){key}(?![.\w])", fault))
            renamed = [name for name in names if not fault.startswith(f"{name}: ")]
            faults.append(f"{path}: {', '.join(renamed)}: {fault}" if renamed else line)
    if faults:
        raise ConfigError(*faults)
    for missing in filter(None, map(fault_of, trackers)):
        warn("convert", f"{path}: report_to: {missing}")
    said = [f"{path}: {line}" for line in done.lines]
    said.append(f"{path}: all other settings are those of {below}; data.source is {new['data']['source']}")
    return edited(text, differences(base, new)), said


def keep(out: Path) -> str:
    """Copy a file that will be replaced to a new name, and return the end of the last line."""
    number, copy_of = 1, out.with_name(f"{out.name}.old")
    while lexists(copy_of):
        number += 1
        copy_of = out.with_name(f"{out.name}.old{number}")
    shutil.copy2(out, copy_of)
    return f"; the old file is now {copy_of}"


if __name__ == "__main__":
    main(asked)
