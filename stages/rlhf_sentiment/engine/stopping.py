"""How a stage stops: SIGINT (Ctrl-C), SIGTERM, or the death of the dvc that started it.

At once, unless it is in a training loop that is `patient`: then it ends its step and writes a checkpoint first.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil


class Stopped(BaseException):
    """The stage was told to stop. No `Exception`, so that nothing takes it for a fault and goes on."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


_dvc: psutil.Process | None = None  # what started the stage
_patient = False
_asked: Stopped | None = None
_when = 0.0


def listen(stage: str) -> None:
    """Turn SIGINT and SIGTERM into `Stopped`, unless they were ignored from the start, and remember who started the stage."""
    global _dvc
    _dvc = next(filter(_is_dvc, _above()), None) or next(filter(_may_use_dvc, _above()), None)

    def stop(number: int, _: FrameType | None) -> None:
        global _asked, _when
        if _asked is not None and time.monotonic() - _when < 1:  # the same one, from the terminal and from a parent
            return
        again, _when = _asked is not None, time.monotonic()
        _asked = Stopped(number, f"stopped by {signal.Signals(number).name}")
        if again or not _patient:
            raise _asked  # Python drops it where it comes in a `__del__`: then the next `asked` stops the stage
        print(f"{stage}: {signal.Signals(number).name}: ends this step first; once more stops at once", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # started so: `trap '' INT`, or `&` in a script
            signal.signal(number, stop)


def _above() -> list[psutil.Process]:
    """The stage's ancestors, nearest first: DVC runs commands in a shell, and not each steps aside for them (dash does not)."""
    try:
        return psutil.Process().parents()
    except psutil.Error:
        return []


def _is_dvc(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "dvc" in {Path(word).name for word in process.cmdline()}
    return False


def _may_use_dvc(process: psutil.Process) -> bool:
    """Whether it may be a program that calls DVC as a library, and not what takes in orphans, which is seldom of our session:
    dvc may have been killed while the stage was importing."""
    with suppress(psutil.Error, OSError):
        python = re.match(r"python|jupyter|ipython", Path(process.cmdline()[0]).name) if process.cmdline() else None
        return python is not None and process.pid != 1 and os.getsid(process.pid) == os.getsid(0)
    return False


@contextmanager
def patient() -> Iterator[None]:
    """Within, the first signal is only noted, for `asked`; at the end of the block the stage stops."""
    global _patient
    _patient = True
    try:
        yield
    finally:
        _patient = False
    if (stopped := asked()) is not None:
        raise stopped


def asked() -> Stopped | None:
    """The reason to stop after this step, where there is one.

    A stage whose dvc was killed must not go on: it would write outs that the next `dvc repro` has dealt with already.
    """
    if _asked is None and "DVC_STAGE" in os.environ and _dvc not in _above():
        return Stopped(signal.SIGTERM, "the dvc that started it is gone")
    return _asked
