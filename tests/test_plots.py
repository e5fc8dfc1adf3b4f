"""The plots of dvc.yaml, drawn by the templates in .dvc/plots, and the page that shows them without a network."""

import csv
import re
import stat
import sys
import xml.etree.ElementTree as Xml
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
import yaml
from dvc.render.match import match_defs_renderers

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.evaluation.contestants import CONTESTANTS
from rlhf_sentiment.evaluation.plot_data import make_tables

from .conftest import ROOT, assert_names

sys.path.insert(0, str(ROOT / "tools"))
import plots_page

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
ENTRIES = [*chain.from_iterable(stage.get("plots", []) for stage in PIPELINE["stages"].values()), *PIPELINE["plots"]]
# The plots that Vega draws, and how DVC is to draw them.
PLOTS: dict[str, dict[str, Any]] = {name: look for entry in ENTRIES for name, look in entry.items() if "template" in look}
# What a row of its table becomes in each template.
MARK = {
    "curve": "symbol",
    "bars": "rect",
    "rows": "rect",
    "distribution": "rect",
    "reliability": "symbol",
    "frontier": "symbol",
    "prompts": "symbol",
}

Rows = list[dict[str, str]]


def file_of(name: str) -> str:
    """Return the CSV of a plot."""
    y = PLOTS[name]["y"]
    return next(iter(y)) if isinstance(y, dict) else name


def draw(name: str, rows: Rows, revisions: tuple[str, ...] = ("workspace",)) -> Xml.Element:
    """Return the SVG of a plot of the same rows in each revision. DVC fills the template."""
    data = {
        revision: {
            "definitions": {"data": {"dvc.yaml": {"data": {name: PLOTS[name]}}}},
            "sources": {"data": {file_of(name): {"data": rows}}},
        }
        for revision in revisions
    }
    (found,) = match_defs_renderers(data, templates_dir=str(ROOT / ".dvc/plots"))
    assert not found.definition_errors
    drawn: Xml.Element = Xml.fromstring(vl_convert.vegalite_to_svg(found.renderer.get_filled_template()))  # noqa: S314 (ours)
    return drawn


def marks(svg: Xml.Element, kind: str) -> list[Xml.Element]:
    """Return the marks of a kind, such as symbol, rect, rule, line and text. Axes and legends are left out."""
    return [mark for group in svg.iter() if f"mark-{kind} role-mark" in group.get("class", "") for mark in group]


def texts(svg: Xml.Element, role: str) -> list[str]:
    """Return the texts with a role, such as axis-title and legend-label, in their order."""
    groups = (group for group in svg.iter() if group.get("class") == f"mark-text role-{role}")
    return ["".join(text.itertext()) for group in groups for text in group]


@pytest.mark.parametrize("revisions", [("workspace",), ("workspace", "main")], ids=["show", "diff"])
@pytest.mark.parametrize("name", PLOTS)
def test_a_committed_table_is_drawn(name: str, revisions: tuple[str, ...]) -> None:
    look, file = PLOTS[name], file_of(name)
    rows = list(csv.DictReader((ROOT / file).open()))
    svg = draw(name, rows, revisions)
    y = look["y"] if isinstance(look["y"], str) else look["y"][file]
    shown = [row for row in rows if "nan" not in (row[look["x"]], row[y])]
    assert len(marks(svg, MARK[look["template"]])) == len(shown) * len(revisions) > 0
    assert texts(svg, "title-text")[-1] == look["title"]
    assert set(texts(svg, "axis-title")) == {look["x_label"], look["y_label"]}
    assert set(revisions) <= set(texts(svg, "legend-label"))
    assert len(look["title"]) < 50
    for column in ("model", "judge", "figure"):
        if column in rows[0] and look["template"] != "rows":
            first = list(dict.fromkeys(row[column] for row in rows))
            written = ["".join(text.itertext()) for text in svg.iter() if text.tag.endswith("text")]
            assert sorted(first, key=written.index) == first, "in the order of the table"


def table(template: str, columns: tuple[str, ...], *lines: tuple[Any, ...]) -> tuple[str, Rows]:
    """Return the name of a plot with this template, and its table."""
    name = next(name for name, look in PLOTS.items() if look["template"] == template)
    return name, [dict(zip(columns, map(str, line), strict=True)) for line in lines]


def test_a_curve_sorts_its_steps_as_numbers() -> None:
    name, rows = table("curve", ("step", "loss"), (9, 1.0), (10, 2.0), (19, 3.0))
    for revisions in (("workspace",), ("workspace", "main")):
        lines = marks(draw(name, rows, revisions), "line")
        for look in ("stroke", "stroke-dasharray"):
            assert len({line.get(look) for line in lines}) == len(revisions)
        for line in lines:
            places = [tuple(map(float, place.split(","))) for place in line.get("d", "")[1:].split("L")]
            # 340 pixels for steps 9 to 19, and 220 for losses 1 to 3
            assert places == [(0, 220), (34, 110), (340, 0)]


@pytest.mark.parametrize("revisions", [("workspace",), ("workspace", "main")], ids=["show", "diff"])
def test_intervals_are_error_bars(revisions: tuple[str, ...]) -> None:
    columns = ("model", "figure", "kl", "value", "low", "high")
    lines = [("base", "ratio", 2, 0.5, 0.25, 1), ("sft", "ratio", 0, 0.5, 0.5, 0.75), ("aaa", "ratio", 1, 1, 0.5, 0.75)]
    for template, long, axis in (("bars", 190, "x2"), ("frontier", 240, "y2")):
        name, rows = table(template, columns, *lines)
        svg = draw(name, rows, revisions)
        bars = marks(svg, "rule")
        assert [abs(float(bar.get(axis, "0"))) / long for bar in bars] == pytest.approx([0.75, 0.25, 0.25] * len(revisions))
        drawn = marks(svg, MARK[template])
        assert [mark.get("fill") for mark in drawn] == ["#999999", "#0072B2", "#D55E00"] * len(revisions)
        assert len({(mark.get("opacity"), re.sub(r"[\d.,-]", "", mark.get("d", ""))) for mark in drawn}) == len(revisions)
        assert drawn[0].get("opacity") == "1"


def test_bars_begin_at_0_and_need_no_interval() -> None:
    lines = [("base", "a", 0.9), ("sft", "a", 1), ("base", "b", 0.01), ("sft", "b", 0.1)]
    name, rows = table("bars", ("model", "figure", "value"), *lines)
    svg = draw(name, rows)
    assert {bar.get("x2") for bar in marks(svg, "rule")} == {"0"}
    assert texts(svg, "axis-label")[:2] == ["base", "sft"]
    widths = [float(re.findall(r"h([\d.]+)", mark.get("d", ""))[0]) for mark in marks(svg, "rect")]
    assert widths == pytest.approx([171, 190, 19, 190])


def test_a_distribution_fills_its_bins() -> None:
    lines = [("base", 0.0, 0.5), ("base", 0.95, 0.5), ("sft", 0.5, 1)]
    name, rows = table("distribution", ("model", "P(positive)", "share"), *lines)
    corners = [re.findall(r"-?[\d.]+", mark.get("d", "")) for mark in marks(draw(name, rows), "rect")]
    # 210 pixels for the whole axis, so 10.5 for a bin; 200 for shares up to 1
    wanted = [(0, 100, 10.5, 100), (199.5, 100, 10.5, 100), (105, 0, 10.5, 200)]
    assert [tuple(map(float, corner[:4])) for corner in corners] == [pytest.approx(place) for place in wanted]


def test_a_bin_of_few_texts_interrupts_the_curve() -> None:
    lines = [("one", "cut", 0, 0), ("one", "cut", 0.5, "nan"), ("one", "cut", 1, 0.5), ("two", "cut", 0, 1)]
    name, rows = table("reliability", ("judge", "text", "P(positive)", "share"), *lines, ("two", "cut", 1, 1))
    svg = draw(name, rows)
    places = ["translate(0,210)", "translate(210,105)", "translate(0,0)", "translate(210,0)"]
    assert [mark.get("transform") for mark in marks(svg, "symbol")] == places
    assert [line.get("d", "").count("M") for line in marks(svg, "line")] == [2, 1]
    assert len(marks(svg, "rule")) == 2, "a diagonal for each judge"


def test_the_tables_of_the_judges_and_the_answers() -> None:
    said = np.array([0.01] * 6 + [0.33] * 2 + [0.97] * 6)
    examined = {"classifier": {"whole": said, "cut": said[::-1]}}
    positive = {name: np.array([[0.0, 0.04], [0.05, 1.0]]) for name in CONTESTANTS}
    result = {name: {"kl_to_sft": 0.5} for name in CONTESTANTS}
    labels = (said > 0.5) * 1
    tables = make_tables(result, positive, examined, labels, {"confidence": 0.95, "resamples": 99, "seed": 0})
    bins = tables.reliability
    assert list(bins["text"]) == ["whole"] * 10 + ["cut"] * 10
    assert bins["texts"].tolist() == [6, 0, 0, 2, 0, 0, 0, 0, 0, 6] * 2
    places = [0.01, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.97]
    assert bins["P(positive)"].tolist() == pytest.approx(places * 2), "the middle of a bin of few texts"
    assert bins["share"].tolist() == pytest.approx([0, *[np.nan] * 8, 1, 1, *[np.nan] * 8, 0], nan_ok=True)
    shares = tables.distribution
    assert list(dict.fromkeys(shares["model"])) == list(CONTESTANTS)
    assert shares["share"].tolist() == [0.5, 0.25, *[0] * 17, 0.25] * len(CONTESTANTS)


def install(monkeypatch: pytest.MonkeyPatch, root: Path) -> str:
    (root / ".dvc").mkdir(exist_ok=True)
    monkeypatch.setattr(plots_page, "ROOT", root)
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: snippet)  # the real one takes 1.3 s
    plots_page.install()
    return (root / ".dvc/config.local").read_text()


def test_the_page_carries_vega_and_names_no_host(tmp_path: Path) -> None:
    plots_page.write_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("{plot_divs}") == 1
    assert "{scripts}" not in page
    assert page.count("</script") == 1, "the bundle does not end its element"
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", page.split("<script>")[0] + page.split("</script>")[1])


def test_the_page_is_named_in_the_settings_of_this_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install(monkeypatch, tmp_path) == "[plots]\nhtml_template = offline.html\n"
    assert sorted(path.name for path in (tmp_path / ".dvc").iterdir()) == ["config.local", "offline.html"]
    ours = "# where our cache is\n[cache]\ndir = /mnt/cache\n"
    settings = tmp_path / ".dvc/config.local"
    settings.write_text(ours)
    settings.chmod(0o600)
    assert install(monkeypatch, tmp_path) == ours + "[plots]\nhtml_template = offline.html\n"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    theirs = "[plots]\nhtml_template = mine.html\n"
    settings.write_text(theirs)
    assert install(monkeypatch, tmp_path) == theirs
    settings.write_text("[plots\n")
    with pytest.raises(StageError) as error:
        install(monkeypatch, tmp_path)
    assert_names(error.value, ".dvc/config.local", "[plots", "correct or remove")


def test_git_ignores_what_the_command_writes() -> None:
    ignored = (ROOT / ".dvc/.gitignore").read_text().splitlines()
    assert {"/config.local", "/offline.html"} <= set(ignored)
