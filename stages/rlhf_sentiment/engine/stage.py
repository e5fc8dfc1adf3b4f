"""Run a stage: its command line, its first and last line, and its exit status.

A stage script declares what it reads, what it writes and which settings it loads, and then calls `stage(...)`. dvc.yaml
declares the same for DVC, and a test compares the two.
"""

import argparse
import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel

from . import environment, tracking
from .arithmetic import Arithmetic
from .elsewhere import warn_elsewhere
from .errors import ConfigError, StageError, one_line_errors
from .hints import command
from .inputs import require, warn_of_untracked
from .locks import locked
from .messages import Parser, one_line, shown, tell, warn
from .outputs import remove_halves
from .params import load
from .progress import live_tables
from .stopping import listen, requested_stop

S = TypeVar("S", bound=BaseModel)
Paths = Sequence[str] | Mapping[str, Sequence[str]]

OPTIONS = ("--help", "--params", "--preview")
STAGES = Path(__file__).resolve().parents[2]


def stage(
    name: str,
    doc: str | None,
    schema: type[S],
    main: Callable[..., str],
    reads: Paths = (),
    writes: Paths = (),
    preview: Callable[[S, int], str] | None = None,
    lower: str = "",
) -> None:
    """Parse the command line, load the settings, run `main` and exit.

    The exit status is 0 for success, 1 for a wrong input or a failed stage, and 2 for wrong settings. After a stop it is 130
    (SIGINT) or 143 (SIGTERM).

    Args:
        name: the stage's name, as in dvc.yaml.
        doc: the script's docstring, which `--help` prints.
        schema: the sections of params.yaml that the stage loads.
        main: the stage. It returns the end of the last line, such as its most important figure.
        reads: files and folders that must be there, relative to the current folder.
        writes: files and folders that `main` writes.
        preview: what `--preview N` runs instead of `main`, for a stage that has a preview. It writes nothing.
        lower: the settings to lower where memory is short.

    A stage that dvc.yaml runs once for each of several items (`foreach`) gives `reads` and `writes` by the item's name. The
    first argument on its command line is this name, and `main` takes it after the settings.
    """
    arguments = _parser(name, doc, reads, writes, has_preview=preview is not None).parse_args()
    reads, writes = _of(reads, arguments), _of(writes, arguments)
    if "item" in arguments:
        name, main = f"{name}@{arguments.item}", partial(main, name=arguments.item)
    for stream in (sys.stdout, sys.stderr):  # the text may have characters that the terminal cannot show
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    keep_freed_memory()
    listen(name, writes)
    environment.code(STAGES)
    with one_line_errors(name, lower):
        settings = load(schema, arguments.params, whole=name == "check")
        if preview is not None and arguments.preview is not None:
            print(one_line(f"{name}: wrote nothing; {preview(settings, arguments.preview)}"), flush=True)
            return
        for change in environment.changes(name):
            warn(name, f"{change} (docs/reproducibility.md)")
        if isinstance(settings, Arithmetic):  # other stages, such as prepare, do not depend on it
            warn_elsewhere(name, settings.arithmetic)
        with locked(name, reads, writes):
            if (stopped := requested_stop()) is not None:  # dvc has ended while the stage was starting
                raise stopped
            remove_halves(writes)
            for path in reads:
                require(Path(path))
            warn_of_untracked(name, reads)
            print(one_line(f"{name}: reads {', '.join(reads) or arguments.params}"), flush=True)
            with tracking.reporting(name, arguments.params, settings, writes), live_tables():
                result = main(settings)
                refuse_edited(arguments.params, settings, name)
                environment.record(name)
                tracking.log_outs(writes)
        print(one_line(f"{name}: wrote {', '.join(writes)}; {result}"), flush=True)


def refuse_edited(params: Path, settings: BaseModel, name: str) -> None:
    """Refuse code or settings that were edited since the stage read them.

    DVC records code and settings as they are at the end of a stage, so it would record a version that did not run.

    Raises:
        StageError: the message names the files.
    """
    edited = [f"stages/{file}" for file in environment.edited(STAGES)]
    if load(type(settings), params, whole=name == "check") != settings:
        edited.append(str(params))
    if edited:
        raise StageError(
            f"{', '.join(edited)} was edited while the stage ran; run `dvc repro` again (with the old version, "
            "a training stage resumes from its last checkpoint)"
        )


class StageParser(Parser):
    """The command line of a stage. It answers options that are settings, such as `--steps 100`, with the right command."""

    stage = ""

    def error(self, message: str) -> NoReturn:
        """Print the error on one line, and exit with status 2."""
        words = [word for word in sys.argv[1:] if not any(option.startswith(word.partition("=")[0]) for option in OPTIONS)]
        if any(word.startswith("--config") for word in words):
            super().error("--params FILE names a file of settings")
        with suppress(ConfigError):  # the repository's params.yaml is damaged
            if (instead := command(self.stage, words, STAGES.parent / "params.yaml")) is not None:
                tell(self.prog, f"settings are not options; {instead}")
                sys.exit(2)
        super().error(message)


def _parser(name: str, doc: str | None, reads: Paths, writes: Paths, has_preview: bool) -> StageParser:
    """Return the command line of a stage. The arguments are those of `stage`."""
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
    return parser


def _of(paths: Paths, arguments: argparse.Namespace) -> Sequence[str]:
    """Return the paths of a stage, or of the item that the command line names."""
    return paths[arguments.item] if isinstance(paths, Mapping) else paths


def _all(paths: Paths) -> list[str]:
    """Return the paths of a stage, of all its items together."""
    each = paths.values() if isinstance(paths, Mapping) else [paths]
    return list(dict.fromkeys(chain.from_iterable(each)))


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a positive whole number")
    return int(text)


def keep_freed_memory() -> None:
    """Let the process keep the large blocks of memory that it frees. This needs glibc, and does nothing elsewhere.

    Each training step allocates the same tensors again. By default glibc returns them to the kernel, which clears every page
    again. This takes a fifth of a PPO step's time on a CPU (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_max = -1, -4  # names of malloc.h
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)
