"""How a stage runs: its command line, its first and last line, its errors, and outputs that are whole or absent.

A stage script says what it reads, what it writes and which settings it loads, then calls `stage(...)`. dvc.yaml says
the same to DVC, and a test holds the two equal.
"""

import argparse
import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from . import environment
from .brought import BROUGHT, warn_of_untracked, whence
from .config import ConfigError, load
from .locks import locked
from .messages import Parser, cut, mend_of, one_line, shown, tell, warn
from .stopping import Stopped, asked, listen


class StageError(RuntimeError):
    """A stage cannot go on. The message says, in one line, what is wrong, where, and what would be right.

    Example:
        >>> try:
        ...     run_evaluation(RLHFConfig(), "The film was")
        ... except StageError as error:
        ...     print(error)
        prompts should be a list of texts (got 'The film was')
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


S = TypeVar("S", bound=BaseModel)

STAGES = Path(__file__).resolve().parents[1]


def stage(
    name: str,
    doc: str | None,
    schema: type[S],
    main: Callable[[S], str],
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
    look: Callable[[S, int], str] | None = None,
    lower: str = "",
) -> None:
    """Parse the command line, load the settings, run `main` and exit.

    Args:
        name: the stage's name, as dvc.yaml has it.
        doc: the script's docstring; `--help` prints it.
        schema: the sections of params.yaml that the stage loads.
        main: the stage; returns what its last line says (a figure worth seeing).
        reads: files and folders that must be there, relative to the current folder.
        writes: files and folders that `main` writes.
        look: what `--preview N` runs instead of `main`, for a stage that has it; it writes nothing.
        lower: the settings to lower where memory is short.

    Exit status: 0 done, 1 an input is wrong or the stage failed, 2 the settings are wrong, 130 and 143 stopped by SIGINT and
    SIGTERM.
    """
    parser = Parser(
        prog=f"python stages/{name}.py",
        description=f"{doc}\nReads   {', '.join(reads) or 'no data'}\nWrites  {', '.join(writes)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: %(default)s")
    if look is not None:
        parser.add_argument("--preview", type=_count, metavar="N", help="show N of what it would write, and write nothing")
    arguments = parser.parse_args()
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


@contextmanager
def one_line_errors(name: str, lower: str = "") -> Iterator[None]:
    """Turn the errors that users cause into a line on stderr and an exit status; let bugs keep their traceback."""
    try:
        yield
    except ConfigError as error:
        for line in str(error).splitlines():
            tell(name, line)
        sys.exit(2)
    except StageError as error:
        tell(name, error)
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        tell(name, f"{error.filename or 'input/output'}: {error.strerror}")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        tell(name, f"memory is not enough; lower {lower or 'the sizes in params.yaml'}")
        sys.exit(1)
    except Stopped as stopped:
        tell(name, f"{stopped}; outputs that were not finished are absent")
        sys.exit(128 + stopped.number)


def first_line(error: Exception) -> str:
    """What a library's error says, the first line of it, or two where the first ends with a colon; its kind, where it says
    nothing."""
    first, *more = (str(error).strip() or type(error).__name__).splitlines()
    return cut(f"{first} {more[0].strip()}" if more and first.endswith(":") else first, 300)


def _is_of_memory(error: Exception) -> bool:
    """numpy and Python raise MemoryError, torch on a GPU OutOfMemoryError, torch on a CPU a RuntimeError that says so."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


# What makes a folder a model: half a model is refused before any work, not met as a traceback in the middle of it.
_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def require(path: Path) -> None:
    """Refuse an input that is absent, empty, or half there.

    Raises:
        StageError: naming the path and the stage that would write it.
    """
    if not path.exists():
        mend = "`dvc repro` writes what is missing, in order"
        if path.as_posix() in BROUGHT:
            mend = f"`git checkout {path}` brings it back"
        elif path.as_posix().startswith(tuple(f"{folder}/" for folder in BROUGHT)):
            mend = f"put it there{whence(path)}"
        raise StageError(f"{path} is missing; {mend}")
    if path.is_file() and path.stat().st_size == 0:
        raise StageError(f"{path} is empty; {mend_of(path)}")
    if path.is_dir() and path.parent == Path("models") and path.name not in ("judge", "pretrained"):
        absent = [file for file in _MODEL_FILES if not (path / file).is_file()]
        if absent:
            raise StageError(f"{path} is half there: {', '.join(absent)} missing; {mend_of(path)}")


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; it takes the name `path` only when the block ends well.

    Example:
        with writing("models/sft") as folder:
            model.save_pretrained(folder)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}.part") for kind in ("new", "old"))
    try:
        yield aside
        if path.is_dir() != aside.is_dir() and path.exists():
            raise StageError(f"{path}: a {'folder' if path.is_dir() else 'file'} is in the way; name another path")
        if (stopped := asked()) is not None:
            raise stopped
        if path.is_dir():
            path.replace(old)  # a folder that is being deleted is half there for a moment; one that is renamed never is
        aside.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say what it was full for
            error.filename = str(path)
        raise
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.replace(path)
        _remove(aside)
        _remove(old)


def remove_halves(writes: Sequence[str]) -> None:
    """Remove what a stage that was killed while it wrote left beside its outs."""
    for path in map(Path, writes):
        for half in path.parent.glob(f".{path.name}.*.part"):
            _remove(half)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
