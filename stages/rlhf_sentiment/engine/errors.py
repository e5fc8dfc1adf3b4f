"""The errors that users cause. Each becomes a line that says what is wrong, where, and what would be right."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .messages import cut, one_line, tell
from .ranks import LOST, note_loss, size

# In the errors of gloo and of NCCL, where another rank has ended.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "ncclRemoteError", "recvValue failed")


class ConfigError(ValueError):
    """The settings are wrong. Each line of the message names a key and says what would be right.

    Example:
        >>> try:
        ...     RLHFConfig(device="gpu")
        ... except ConfigError as error:
        ...     print(error)
        settings: device: should be auto, cpu, mps, cuda or cuda:N (got 'gpu')
    """

    status = 2  # with which a stage exits

    def __init__(self, *lines: object) -> None:
        super().__init__("\n".join(map(one_line, lines)))


class OldSettingsError(ConfigError):
    """A file has the keys of an old version. Each line of the message names a key and the setting that it became."""

    status = 1


class StageError(RuntimeError):
    """A stage cannot continue. The message says, in one line, what is wrong, where, and what would be right.

    Example:
        >>> try:
        ...     run_evaluation(RLHFConfig(), "The film was")
        ... except StageError as error:
        ...     print(error)
        prompts should be a list of texts (got 'The film was')
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


class Stopped(BaseException):
    """The stage stops, because of a signal or because its dvc has ended.

    This is not an `Exception`, so that code which handles faults does not catch it.

    Attributes:
        number: the signal. The exit status is 128 + number.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


@contextmanager
def one_line_errors(name: str, lower: str = "") -> Iterator[None]:
    """Turn the errors that users cause into a line on stderr and an exit status. Bugs keep their traceback.

    Args:
        name: the stage, with which each line begins.
        lower: the settings to lower where memory is short.
    """
    try:
        yield
    except ConfigError as error:
        for line in str(error).splitlines():
            tell(name, line)
        sys.exit(error.status)
    except StageError as error:
        tell(name, error)
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        tell(name, f"{error.filename or 'input/output'}: {error.strerror}")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if size() > 1 and any(words in str(error) for words in _LOST):
            note_loss(first_line(error))
            sys.exit(LOST)  # another rank has ended, and the launcher says why
        if not _is_of_memory(error):
            raise
        tell(name, f"memory is not enough; lower {lower or 'the sizes in params.yaml'}")
        sys.exit(1)
    except Stopped as stopped:
        tell(name, f"{stopped}; no unfinished output was written")
        sys.exit(128 + stopped.number)


def first_line(error: Exception) -> str:
    """Return the first line of a library's error message.

    Where the first line ends with a colon, the second line follows it. Where there is no message, the result is the
    error's class.
    """
    first, *more = (str(error).strip() or type(error).__name__).splitlines()
    return cut(f"{first} {more[0].strip()}" if more and first.endswith(":") else first, 300)


def _is_of_memory(error: Exception) -> bool:
    """Return whether memory was short.

    numpy and Python raise MemoryError. torch raises OutOfMemoryError on a GPU, and a RuntimeError on a CPU. The errors of
    C++ and of oneDNN's products do not name memory.
    """
    said = any(words in str(error) for words in ("allocate memory", "bad_alloc", "could not create a primitive"))
    return said or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
