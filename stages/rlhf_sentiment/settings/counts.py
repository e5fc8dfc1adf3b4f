"""Counts in params.yaml: a whole number, a share of the available rows, or empty."""

import math
from typing import Annotated

from pydantic import PlainValidator

from ..engine.messages import shown

Asked = int | float | None


def counting(least: int, even: bool = False) -> PlainValidator:
    """Return a check that a setting is a count: a whole number of at least `least`, a share below 1, or empty."""

    def check(value: object) -> object:
        whole = type(value) is int and least <= value <= 10_000_000
        share = type(value) is float and 0 < value < 1
        if value is not None and not whole and not share:
            raise ValueError(
                f"should be a whole number from {least} to 10000000, a share of the available rows (above 0 and below 1), or "
                f"empty (got {shown(value)})"
            )
        if whole and even and value % 2:  # type: ignore[operator]
            raise ValueError(f"should be a multiple of 2 (got {value})")
        return value

    return PlainValidator(check)


Count = Annotated[Asked, counting(1)]
EvenCount = Annotated[Asked, counting(2, even=True)]


def number_of(asked: Asked, there: int) -> int:
    """Return the number that a count comes to.

    Args:
        asked: a whole number, which stays itself; a share, which comes to at least 1; or None for all.
        there: the number of available rows.

    Example:
        >>> number_of(40, 10), number_of(0.25, 10), number_of(None, 10)
        (40, 2, 10)
    """
    if isinstance(asked, float):
        return max(math.floor(asked * there + 1e-9), 1)  # 0.29 * 100 is below 29 in floating point
    return there if asked is None else asked
