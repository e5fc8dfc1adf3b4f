"""How a stage stops: by SIGINT (Ctrl-C), by SIGTERM, or because the dvc that started it has ended.

A stage stops at once. Only inside `patient`, as in a training loop, it ends its step and writes a checkpoint first.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import psutil

from .dvc_state import is_running, writer_of
from .errors import Stopped
from .ranks import is_main

_dvc: int | None = None  # the process id of the dvc that started the stage
_patient = False
_requested: Stopped | None = None
_when = 0.0


def listen(stage: str, writes: Sequence[str] = ()) -> None:
    """Turn SIGINT and SIGTERM into `Stopped`, and note which dvc started the stage.

    A signal that was ignored when the process started stays ignored. A rank other than 0 stops when rank 0 does.

    Args:
        stage: the name for messages.
        writes: the stage's outputs. DVC notes beside them which process runs the stage.
    """
    global _dvc
    _dvc = writer_of(writes[0]) if writes and "DVC_STAGE" in os.environ else None

    def stop(number: int, _: FrameType | None) -> None:
        global _requested, _when
        if _requested is not None and time.monotonic() - _when < 1:  # the same signal, from the terminal and from a parent
            return
        again, _when = _requested is not None, time.monotonic()
        _requested = Stopped(number, f"stopped by {signal.Signals(number).name}")
        if again or not _patient:
            raise _requested  # Python ignores an exception in a `__del__`. The next `requested_stop` stops the stage then.
        print(f"{stage}: {signal.Signals(number).name}: finishes this step; send the signal again to stop now", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        if not is_main():
            signal.signal(number, signal.SIG_IGN)
        elif signal.getsignal(number) != signal.SIG_IGN:  # ignored: `trap '' INT`, or `&` in a script
            signal.signal(number, stop)


@contextmanager
def patient() -> Iterator[None]:
    """Let the first signal wait for the next `requested_stop`, or for the end of the block, which then stops the stage."""
    global _patient
    _patient = True
    try:
        yield
    finally:
        _patient = False
    if (stopped := requested_stop()) is not None:
        raise stopped


def requested_stop() -> Stopped | None:
    """Return the reason to stop after this step. None where there is no reason.

    A stage must not run longer than its dvc, because the next `dvc repro` may have replaced the stage's outputs already. The
    stage's parent does not show that dvc has ended. Some shells run between the two, and others do not.
    """
    if _requested is None and _dvc is not None and not is_running(_dvc, psutil.Process().create_time()):
        return Stopped(signal.SIGTERM, "the dvc that started it has ended")
    return _requested


def ask_to_stop(number: int) -> None:
    """Let this process stop as if the signal `number` had come, because rank 0 stops."""
    global _requested
    _requested = _requested or Stopped(number, f"stopped by {signal.Signals(number).name}")
