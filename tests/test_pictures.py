"""The files of the PNG plots and of the answers: what is in them, and that no library or setting of the system changes them."""

import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from rlhf_sentiment.engine.compression import gzipped, png
from rlhf_sentiment.evaluation.picture import picture

IMAGE = np.array([[[255, 0, 0], [0, 128, 0], [0, 0, 1]], [[2, 3, 4], [255, 255, 255], [9, 8, 7]]], dtype=np.uint8)


def draw(path: Path) -> bytes:
    with picture(path, 2, 2.0, 1.5) as (left, right):
        left.plot([0, 1, 2], [1, 4, 2], label="a curve")
        left.set(title="Curve", xlabel="step")
        left.legend()
        right.bar(["x", "y"], [1, 2])
    return path.read_bytes()


def test_a_png_has_the_pixels_and_opens_with_pillow() -> None:
    with Image.open(io.BytesIO(png(IMAGE))) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (3, 2))
        assert (np.asarray(opened) == IMAGE).all()


def test_compressed_text_is_the_text() -> None:
    assert gzip.decompress(gzipped("ä warm film\n".encode() * 1000)) == "ä warm film\n".encode() * 1000
    assert gzip.decompress(gzipped(b"")) == b""


def test_compressed_bytes_are_those_of_the_pinned_zlib() -> None:
    """zlib-ng, which some systems have in place of zlib, compresses this text to other bytes."""
    text = " ".join(f"{number * number % 9973} films" for number in range(20_000)).encode()
    assert hashlib.sha256(gzipped(text)).hexdigest()[:16] == "39b73ac68c29d6c7"
    assert (
        hashlib.sha256(png(np.frombuffer(text[:90_000], np.uint8).reshape(100, 300, 3))).hexdigest()[:16] == "bf27a90e5d521c1f"
    )


def test_a_picture_has_its_panels_and_its_size(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(draw(tmp_path / "a.png"))) as opened:
        assert opened.size == (480, 180), "two panels of 2.0 x 1.5 inches with 120 dots an inch"
        colours = {colour for _, colour in opened.getcolors(100_000) or []}
    assert {(255, 255, 255), (31, 119, 180)} <= colours, "the background, and the first colour of matplotlib"


@pytest.mark.parametrize(
    "style",
    [
        {"font.family": "serif", "font.size": 20, "text.antialiased": False},
        {"figure.dpi": 60, "savefig.dpi": 60, "figure.facecolor": "black", "savefig.transparent": True},
        {"lines.linewidth": 5, "axes.prop_cycle": "cycler('color', ['red'])", "path.simplify_threshold": 1.0},
    ],
    ids=["font", "figure", "lines"],
)
def test_a_style_of_the_user_changes_no_picture(tmp_path: Path, style: dict[Any, Any]) -> None:
    usual = draw(tmp_path / "a.png")
    with matplotlib.rc_context(style):
        assert draw(tmp_path / "b.png") == usual
