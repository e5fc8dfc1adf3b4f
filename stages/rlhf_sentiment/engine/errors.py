"""The errors that users cause: each becomes a line that says what is wrong, where, and what would be right."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .messages import cut, one_line, tell
from .stopping import Stopped


class ConfigError(ValueError):
    """The settings are wrong. Each line of the message names a key and says what would be right.

    Example:
        >>> try:
        ...     RLHFConfig(device="gpu")
        ... except ConfigError as error:
        ...     print(error)
        params.yaml: device: should be auto, cpu, mps, cuda or cuda:N (got 'gpu')
    """

    def __init__(self, *lines: object) -> None:
        super().__init__("\n".join(map(one_line, lines)))


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
