"""Machines for which `arithmetic: portable` promises no bytes. A stage says so once.

The promise is for Linux with glibc on x86-64 processors with AVX2 (docs/reproducibility.md).
"""

import platform
from pathlib import Path

from .inputs import repository
from .messages import warn

_PROCESSORS = Path("/proc/cpuinfo")
_SAID = Path("runs/environment/elsewhere.txt")  # the reasons that a stage has already given in this clone
_NEEDED = ("AVX2", "FMA")


def why_not_portable() -> str | None:
    """Return why portable arithmetic may give other bytes on this machine, or None where it gives the promised bytes.

    Example:
        >>> why_not_portable()
        'this processor is aarch64'
    """
    system, processor = platform.system(), platform.machine()
    if system != "Linux":
        return f"this system is {'macOS' if system == 'Darwin' else system or 'unknown'}"
    if processor != "x86_64":
        return f"this processor is {processor or 'unknown'}"
    if platform.libc_ver()[0] != "glibc":
        return "the C library of this system is not glibc"
    instructions = _instructions()
    if not instructions:
        return f"the instructions of this processor are unknown, because {_PROCESSORS} has none"
    lacking = [name for name in _NEEDED if name.lower() not in instructions]
    return f"this processor lacks {' and '.join(lacking)}" if lacking else None


def _instructions() -> set[str]:
    """Return the instruction sets of the first processor, in small letters. The set is empty where Linux does not say."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    flags = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() == "flags")
    return set(next(flags, "").split())


def warn_elsewhere(stage: str, arithmetic: str) -> None:
    """Warn that the bytes of a stage may be others, on a machine without the promise.

    A clone gives each reason once. A queued experiment runs in another folder, and looks in the clone that started it.

    Args:
        stage: the stage's name.
        arithmetic: the setting. Nothing is promised for `fast`.
    """
    why = why_not_portable() if arithmetic == "portable" else None
    if why is None or _was_said(why):
        return
    promised = "arithmetic: portable promises its bytes for x86-64 Linux with AVX2"
    warn(stage, f"{promised}; {why}, so expect other bytes (docs/reproducibility.md)")


def _was_said(why: str) -> bool:
    """Return whether a stage of this clone gave this reason before. If not, write it down."""
    said = repository() / _SAID
    try:
        if said.is_file() and why in said.read_text(encoding="utf-8").splitlines():
            return True
        said.parent.mkdir(parents=True, exist_ok=True)
        with said.open("a", encoding="utf-8") as file:
            file.write(f"{why}\n")
    except (OSError, ValueError):  # a folder that cannot be written, or a damaged file: the reason is given again
        pass
    return False
