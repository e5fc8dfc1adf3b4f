"""The README says what is: its table is that of metrics/, its commands exist."""

import json
import re

import yaml

from .closure import ROOT

README = (ROOT / "README.md").read_text()


def test_the_table_is_that_of_the_metrics() -> None:
    metrics = json.loads((ROOT / "metrics/evaluation.json").read_text())
    rows = re.findall(r"^\| [^|`]*`(\w+)`[^|]* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", README, re.MULTILINE)
    assert len(rows) >= 6
    for key, *shown in rows:
        for model, figure in zip(("base", "sft", "rlhf"), shown, strict=True):
            assert float(figure) == round(metrics[model][key], len(figure.split(".")[-1])), (model, key)
    gain = metrics["improvement_over_sft"]
    assert f"{gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}]" in README


def test_its_stages_and_files_exist() -> None:
    for name in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]:
        assert f"| `{name}` |" in README
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path


def test_its_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([\w-]+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
