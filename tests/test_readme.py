"""The README and docs/results.md are correct: tables match the metrics, and commands and links exist."""

import csv
import json
import re
import statistics

import pytest
import yaml

from .closure import ROOT

README = (ROOT / "README.md").read_text()
SECTION = re.compile(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
RESULTS = dict(SECTION.findall((ROOT / "docs/results.md").read_text()))


def assert_table_is(text: str, tree: dict[str, dict[str, float]]) -> None:
    """Assert that rows of `text` with a key in back quotes agree with the figures, and show the improvement's interval."""
    rows = re.findall(r"^\| [^|`]*`(\w+)`[^|]* \| (-?[\d.]+) \| (-?[\d.]+) \| (-?[\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) >= 6
    for key, *shown in rows:
        for model, figure in zip(("base", "sft", "rlhf"), shown, strict=True):
            # Figures have four digits; a rounded figure may differ by one in the last that is shown.
            digits = len(figure.split(".")[-1])
            assert abs(float(figure) - tree[model][key]) <= 0.5001 * 10**-digits, (model, key)
    gain = tree["improvement_over_sft"]
    low, high = gain["ci_low"], gain["ci_high"]
    shown = re.search(r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]", text)
    assert shown
    for figure, value in zip(shown.groups(), (gain["mean_positive"], low, high), strict=True):
        assert abs(float(figure) - value) <= 0.00051


def test_the_table_of_the_readme_equals_the_figures() -> None:
    tree = json.loads((ROOT / "metrics/evaluation.json").read_text())
    with (ROOT / "plots/figures.csv").open() as file:
        for row in csv.DictReader(file):
            tree[row["model"]][row["figure"]] = float(row["value"])
    assert_table_is(README, tree)


def test_the_seeds_of_the_readme_are_those_of_the_table() -> None:
    said = re.search(r"Over five seeds: ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\].*?deviation of ([\d.]+)", README)
    assert said
    with (ROOT / "docs/results/seeds.csv").open() as file:
        gains = [float(row["evaluation.improvement_over_sft.mean_positive"]) for row in csv.DictReader(file)]
    assert len(gains) == 5
    assert float(said[1]) == pytest.approx(statistics.mean(gains), abs=0.00051)
    assert float(said[4]) == pytest.approx(statistics.stdev(gains), abs=0.00051)
    interval = f"[{said[2].lstrip('+')}, {said[3].lstrip('+')}]"
    assert re.search(
        rf"^\| RLHF - SFT .* {re.escape(interval)} \|$", (ROOT / "docs/results/seeds.md").read_text(), re.MULTILINE
    )


@pytest.mark.parametrize("profile", [name for name in RESULTS if (ROOT / "docs/results" / name).is_dir()])
def test_results_equal_the_metrics_of_their_run(profile: str) -> None:
    text, run = RESULTS[profile], ROOT / "docs/results" / profile
    assert_table_is(text, json.loads((run / "evaluation.json").read_text()))
    judge, reward = (json.loads((run / f"{name}.json").read_text()) for name in ("judge", "reward"))
    for figure in (judge["classifier"]["accuracy"], judge["classifier"]["accuracy_cut"], reward["accuracy"]):
        assert f"{figure:.3f}" in text
    assert f"[{reward['accuracy_low']:.3f}, {reward['accuracy_high']:.3f}]" in text
    assert f"{json.loads((run / 'evaluation.json').read_text())['rlhf']['kl_to_sft']:.2f} nats" in text


def test_each_profile_has_results() -> None:
    assert set(RESULTS) == {file.stem for file in (ROOT / "profiles").glob("*.yaml")}


def test_stages_and_files_of_the_readme_exist() -> None:
    for name in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]:
        assert f"| `{name}` |" in README
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./-]+)\)", (ROOT / "docs/results.md").read_text()):
        assert (ROOT / "docs" / path).exists(), path


def test_the_tests_that_the_docs_name_exist() -> None:
    written = "".join(file.read_text() for file in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/ppo.md").read_text())
    assert len(named) >= 19
    assert [name for name in named if f"def {name}(" not in written] == []
