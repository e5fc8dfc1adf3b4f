"""Where text may come from, as the sections `data` and `judge` both name it."""

from typing import Annotated

from pydantic import AfterValidator

from ..engine.messages import shown
from ..engine.params import matching

RAW = "data/raw/"


def inside_raw(path: str) -> str:
    """`path`, which is a file, folder or glob below data/raw, without a slash at its end.

    Raises:
        ValueError: it is not, or leaves that folder.
    """
    path = path.removesuffix("/")
    parts = path.removeprefix(RAW).split("/")
    if not path.startswith(RAW) or not all(parts) or {".", ".."} & set(parts) or "\\" in path or not path.isprintable():
        raise ValueError(f"should be a file, folder or glob below {RAW} (got {shown(path)})")
    return path


RawPath = Annotated[str, AfterValidator(inside_raw)]
HUB_ID = r"(?!data/|models/)\w[\w.-]*/\w[\w.-]*"
HubId = Annotated[str, matching(HUB_ID, "a hub id such as stanfordnlp/imdb")]
