"""Run a stage: its first and last line, and its exit status.

A stage script declares what it reads, what it writes and which settings it loads. It calls `begin` before its imports, and
`stage` at its end. dvc.yaml declares the same for DVC, and a test compares the two.
"""

import ctypes
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from . import environment, tracking
from .arithmetic import Arithmetic
from .command_line import STAGES, Begun
from .elsewhere import warn_elsewhere
from .errors import StageError, Stopped, one_line_errors
from .inputs import require, warn_of_untracked
from .locks import locked
from .messages import one_line, warn
from .outputs import remove_halves
from .params import load
from .progress import live_tables
from .ranks import is_main, named
from .stopping import listen, requested_stop

S = TypeVar("S", bound=BaseModel)


def stage(
    begun: Begun,
    schema: type[S],
    main: Callable[..., str],
    preview: Callable[[S, int], str] | None = None,
    lower: str = "",
    plan: Callable[[S, Path], None] | None = None,
) -> None:
    """Load the settings, run `main` and exit.

    The exit status is 0 for success, 1 for a wrong input or a failed stage, and 2 for wrong settings. After a stop it is 130
    (SIGINT) or 143 (SIGTERM).

    Args:
        begun: the command line, from `begin`.
        schema: the sections of params.yaml that the stage loads.
        main: the stage. It returns the end of the last line, such as its most important figure. Where the stage has items, it
            takes the item's name after the settings.
        preview: what `--preview N` runs instead of `main`, for a stage that has a preview. It writes nothing.
        lower: the settings to lower where memory is short.
        plan: what `--plan` runs instead of `main`, with the settings and their file. It writes nothing.
    """
    name, reads, writes = begun.name, begun.reads, begun.writes
    if begun.item is not None:
        name, main = f"{name}@{begun.item}", partial(main, name=begun.item)
    for stream in (sys.stdout, sys.stderr):  # the text may have characters that the terminal cannot show
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    keep_freed_memory()
    listen(name, writes)
    environment.code(STAGES)
    with one_line_errors(named(name), lower):
        if not is_main():  # rank 0 does all else
            with redirect_stdout(None), suppress(Stopped):
                main(load(schema, begun.params))
            return
        settings = load(schema, begun.params, whole=name == "check")
        if preview is not None and begun.preview is not None:
            print(one_line(f"{name}: wrote nothing; {preview(settings, begun.preview)}"), flush=True)
            return
        if plan is not None and begun.plan:
            plan(settings, begun.params)
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
            print(one_line(f"{name}: reads {', '.join(reads) or begun.params}"), flush=True)
            with tracking.reporting(name, begun.params, settings, writes), live_tables():
                result = main(settings)
                refuse_edited(begun.params, settings, name)
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
