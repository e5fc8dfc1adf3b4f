"""Names of sources of text, for the sections `data` and `judge`."""

from typing import Annotated

from pydantic import AfterValidator

from ..engine.messages import shown
from ..engine.params import matching

RAW = "data/raw/"


def inside_raw(path: str) -> str:
    """Return `path`, a file, folder or glob below data/raw, without a slash at its end.

    Raises:
        ValueError: `path` is not below data/raw.
    """
    path = path.removesuffix("/")
    parts = path.removeprefix(RAW).split("/")
    if not path.startswith(RAW) or not all(parts) or {".", ".."} & set(parts) or "\\" in path or not path.isprintable():
        raise ValueError(f"should be a file, folder or glob below {RAW} (got {shown(path)})")
    return path


RawPath = Annotated[str, AfterValidator(inside_raw)]
HUB_ID = r"(?!data/|models/)\w[\w.-]*/\w[\w.-]*"
HubId = Annotated[str, matching(HUB_ID, "a hub id such as stanfordnlp/imdb")]
