"""The reason why a row cannot be used: a kind, which many rows share, and the details of one row."""

TIE = "a tie: no response is preferred"


class Fault(ValueError):  # noqa: N818 (the row's, not the program's)
    """A row cannot be used.

    Attributes:
        kind: the reason without the row's own values, so that rows can be counted by it. The message has the values.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail or kind)
        self.kind = kind
