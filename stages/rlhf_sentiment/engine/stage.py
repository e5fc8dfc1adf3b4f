"""How a stage runs: its command line, its first and last line, and its exit status.

A stage script says what it reads, what it writes and which settings it loads, then calls `stage(...)`. dvc.yaml says
the same to DVC, and a test holds the two equal.
"""

import argparse
import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from . import environment
from .artifacts import remove_halves, require
from .errors import StageError, one_line_errors
from .inputs import warn_of_untracked
from .locks import locked
from .messages import Parser, one_line, shown, warn
from .params import load
from .stopping import asked, listen

S = TypeVar("S", bound=BaseModel)
Paths = Sequence[str] | Mapping[str, Sequence[str]]

STAGES = Path(__file__).resolve().parents[2]


def stage(
    name: str,
    doc: str | None,
    schema: type[S],
    main: Callable[..., str],
    reads: Paths = (),
    writes: Paths = (),
    look: Callable[[S, int], str] | None = None,
    lower: str = "",
) -> None:
    """Parse the command line, load the settings, run `main` and exit.

    Args:
        name: the stage's name, as dvc.yaml has it.
        doc: the script's docstring; `--help` prints it.
        schema: the sections of params.yaml that the stage loads.
        main: the stage; returns what its last line says (a figure worth seeing).
        reads, writes: paths that must be there, and paths that `main` writes. A stage with a `foreach` in dvc.yaml gives them
            by item. Then the command line begins with an item, and `main` takes the item as `name`.
        look: what `--preview N` runs instead of `main`, for a stage that has it; it writes nothing.
        lower: the settings to lower where memory is short.

    Exit status: 0 done, 1 wrong input or failed, 2 wrong settings, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    arguments = _parse(name, doc, reads, writes, preview=look is not None)
    reads, writes = _of(reads, arguments), _of(writes, arguments)
    if "item" in arguments:
        name, main = f"{name}@{arguments.item}", partial(main, name=arguments.item)
    for stream in (sys.stdout, sys.stderr):  # text of any script, whatever the terminal can show
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    keep_freed_memory()
    listen(name)
    environment.code(STAGES)
    with one_line_errors(name, lower):
        settings = load(schema, arguments.params, whole=name == "check")
        if look is not None and arguments.preview is not None:
            print(one_line(f"{name}: wrote nothing; {look(settings, arguments.preview)}"), flush=True)
            return
        for change in environment.changes(name):
            warn(name, f"{change} (docs/reproducibility.md)")
        with locked(name, reads, writes):
            if (stopped := asked()) is not None:  # its dvc is gone already
                raise stopped
            remove_halves(writes)
            for path in reads:
                require(Path(path))
            warn_of_untracked(name, reads)
            print(one_line(f"{name}: reads {', '.join(reads) or arguments.params}"), flush=True)
            result = main(settings)
            # DVC records settings and code as they are when the stage has ended, whatever they were when it began.
            edited = [f"stages/{file}" for file in environment.edited(STAGES)]
            if load(schema, arguments.params, whole=name == "check") != settings:
                edited.append(str(arguments.params))
            if edited:
                raise StageError(
                    f"{', '.join(edited)} was edited while the stage ran, and would be recorded as what it ran with; run "
                    "`dvc repro` again (put back as it was, a training stage goes on from its last checkpoint)"
                )
            environment.record(name)
        print(one_line(f"{name}: wrote {', '.join(writes)}; {result}"), flush=True)


def _parse(name: str, doc: str | None, reads: Paths, writes: Paths, preview: bool) -> argparse.Namespace:
    """Parse the command line of a stage."""
    parser = Parser(
        prog=f"python stages/{name}.py",
        description=f"{doc}\nReads   {', '.join(_all(reads)) or 'no data'}\nWrites  {', '.join(_all(writes))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if isinstance(reads, Mapping):
        parser.add_argument("item", choices=list(reads), metavar="NAME", help=f"one of {', '.join(reads)}")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: %(default)s")
    if preview:
        parser.add_argument("--preview", type=_count, metavar="N", help="show N of what it would write, and write nothing")
    return parser.parse_args()


def _of(paths: Paths, arguments: argparse.Namespace) -> Sequence[str]:
    """Return the paths of a stage, or of the item that the command line names."""
    return paths[arguments.item] if isinstance(paths, Mapping) else paths


def _all(paths: Paths) -> list[str]:
    """Return the paths of a stage, of all its items together."""
    each = paths.values() if isinstance(paths, Mapping) else [paths]
    return list(dict.fromkeys(chain.from_iterable(each)))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number from 1 on")
    return int(text)


def keep_freed_memory() -> None:
    """Let the process keep the large blocks that it frees, where the C library is glibc.

    Each training step asks for the same tensors again. By default glibc hands them back to the kernel, which clears every
    page of them anew: a fifth of a PPO step's time on a CPU (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # names of malloc.h
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)
