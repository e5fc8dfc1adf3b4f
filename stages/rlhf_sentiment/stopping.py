"""How a stage stops: SIGINT (Ctrl-C), SIGTERM, or the death of the dvc that started it.

At once, unless it is in a training loop that is `patient`: then it ends its step and writes a checkpoint first.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psutil


class Stopped(BaseException):
    """The stage was told to stop. No `Exception`, so that nothing takes it for a fault and goes on."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


_dvc = 0  # the process that started the stage; 0: it was gone when the stage began to listen
_patient = False
_asked: Stopped | None = None
_when = 0.0


def listen(stage: str) -> None:
    """Turn SIGINT and SIGTERM into `Stopped`, and remember who started the stage."""
    global _dvc
    _dvc = 0 if _is_reaper(_started_by()) else _started_by()

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
        signal.signal(number, stop)


def _started_by() -> int:
    """The stage's parent, or that of the shell between the two: DVC runs commands in one, and not each steps aside (dash)."""
    try:
        parent = psutil.Process(os.getppid())
        return parent.ppid() if re.fullmatch(r"\w*sh", parent.name()) else parent.pid
    except psutil.Error:
        return -1  # gone between the two calls


def _is_reaper(process: int) -> bool:
    """Whether it is no dvc, but what takes in orphans: dvc may have been killed while the stage was importing."""
    try:
        if os.getsid(process) != os.getsid(0):  # a child is of its parent's session; what takes in orphans seldom is
            return True
        words = psutil.Process(process).cmdline()
    except (OSError, ValueError, psutil.Error):
        return True
    if "dvc" in {Path(word).name for word in words}:
        return False
    return process == 1 or not words or re.match(r"python|jupyter|ipython", Path(words[0]).name) is None


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
    if _asked is None and "DVC_STAGE" in os.environ and _started_by() != _dvc:
        return Stopped(signal.SIGTERM, "the dvc that started it is gone")
    return _asked
