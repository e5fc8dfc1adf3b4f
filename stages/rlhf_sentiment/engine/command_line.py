"""The command line of a stage, which is answered before torch is imported.

A stage script declares what it reads and writes, calls `begin`, and imports its libraries only then. So `--help` and a wrong
option are answered at once, and the variables of arithmetic are set before numpy and torch read them.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

from .errors import ConfigError, StageError, one_line_errors
from .launch import run
from .messages import Parser, shown, tell
from .ranks import end_with_parent, size

Paths = Sequence[str] | Mapping[str, Sequence[str]]

OPTIONS = ("--help", "--params", "--preview", "--plan")
STAGES = Path(__file__).resolve().parents[2]


class Begun(NamedTuple):
    """A stage whose command line is read.

    Attributes:
        name: the stage's name, as in dvc.yaml.
        item: the item of its `foreach`, or None.
        reads, writes: the paths of the stage, or of the item.
        params: the file of settings.
        preview: the number of rows to show, or None to run the stage.
        plan: whether to tell what the stage will need, and not to run it.
    """

    name: str
    item: str | None
    reads: Sequence[str]
    writes: Sequence[str]
    params: Path
    preview: int | None
    plan: bool


def begin(
    name: str,
    doc: str | None,
    reads: Paths = (),
    writes: Paths = (),
    has_preview: bool = False,
    has_ranks: bool = False,
    has_plan: bool = False,
) -> Begun:
    """Parse the command line of a stage, and set the variables of arithmetic that its settings ask for.

    Where `launcher` asks for several processes, this process starts them, waits for their end, and exits.

    `--help` exits with status 0, and a wrong command line with status 2.

    Args:
        name: the stage's name, as in dvc.yaml.
        doc: the script's docstring, which `--help` prints.
        reads: files and folders that must be there, relative to the current folder.
        writes: files and folders that the stage writes.
        has_preview: whether the stage has `--preview N`.
        has_ranks: whether the stage can run in several processes.
        has_plan: whether the stage has `--plan`.

    A stage that dvc.yaml runs once for each of several items (`foreach`) gives `reads` and `writes` by the item's name. The
    first argument on its command line is this name.
    """
    given = parser_of(name, doc, reads, writes, has_preview, has_plan).parse_args()
    item, preview, plan = getattr(given, "item", None), getattr(given, "preview", None), getattr(given, "plan", False)
    from .arithmetic import pin_for_stage  # it needs pydantic, which `--help` does not

    pin_for_stage(given.params, name)
    if not plan:
        _launch(f"{name}@{item}" if item else name, given.params, has_ranks)
    return Begun(name, item, _of(reads, item), _of(writes, item), given.params, preview, plan)


def _launch(stage: str, params: Path, has_ranks: bool) -> None:
    """Run the stage in several ranks, and exit with its status, where `launcher` asks for them and this is not a rank.

    Settings that cannot be read start no ranks. The stage itself reports them.
    """
    from .arithmetic import Launching
    from .params import load

    end_with_parent()
    with one_line_errors(stage):
        if not has_ranks:
            if size() > 1:
                raise StageError(f"started as {size()} processes, but this stage runs in one; use `python stages/{stage}.py`")
            return
        try:
            launcher = load(Launching, params).launcher
        except ConfigError:
            return
        if size() > 1 and (launcher is None or (isinstance(launcher, int) and launcher != size())):
            raise StageError(
                f"started as {size()} processes, but launcher in {params} is {launcher or 'empty'}; set it to {size()}"
            )
        if launcher is not None and size() == 1:
            sys.exit(run(stage, launcher))


class StageParser(Parser):
    """The command line of a stage. It answers options that are settings, such as `--steps 100`, with the right command."""

    stage = ""

    def error(self, message: str) -> NoReturn:
        """Print the error on one line, and exit with status 2."""
        from .hints import command  # it needs pydantic

        words = [word for word in sys.argv[1:] if not any(option.startswith(word.partition("=")[0]) for option in OPTIONS)]
        if any(word.startswith("--config") for word in words):
            super().error("--params FILE names a file of settings")
        with suppress(ConfigError):  # the repository's params.yaml is damaged
            if words and (instead := command(self.stage, words, STAGES.parent / "params.yaml")) is not None:
                tell(self.prog, f"settings are not options; {instead}")
                sys.exit(2)
        super().error(message)


def parser_of(
    name: str, doc: str | None, reads: Paths, writes: Paths, has_preview: bool, has_plan: bool = False
) -> StageParser:
    """Return the command line of a stage. The arguments are those of `begin`."""
    parser = StageParser(
        prog=f"python stages/{name}.py",
        description=f"{doc}\nReads   {', '.join(_all(reads)) or 'no data'}\nWrites  {', '.join(_all(writes))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.stage = name
    if isinstance(reads, Mapping):
        parser.add_argument("item", choices=list(reads), metavar="NAME", help=f"one of {', '.join(reads)}")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: %(default)s")
    if has_preview:
        parser.add_argument("--preview", type=_count, metavar="N", help="show N rows of each output, and write nothing")
    if has_plan:
        parser.add_argument("--plan", action="store_true", help="tell the memory and the time of the run, and write nothing")
    return parser


def _of(paths: Paths, item: str | None) -> Sequence[str]:
    """Return the paths of a stage, or of one of its items."""
    return paths[item or ""] if isinstance(paths, Mapping) else paths


def _all(paths: Paths) -> list[str]:
    """Return the paths of a stage, of all its items together."""
    each = paths.values() if isinstance(paths, Mapping) else [paths]
    return list(dict.fromkeys(chain.from_iterable(each)))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a positive whole number")
    return int(text)
