"""The metrics are few, without words, and depend on what they say; what else was measured is in reports/ and plots/."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlhf_sentiment.evaluation.contestants import COMPARISONS, CONTESTANTS, Contestant
from rlhf_sentiment.evaluation.figures import OF_COMPARISON, OF_CONTESTANT, SHARES, about_judges, metrics_of, shares
from rlhf_sentiment.evaluation.judged_answers import write_answers

from .closure import ROOT
from .conftest import RunStage, World, outs

COUNTS = {"data": 5, "sft": 2, "reward": 3, "judge": 2, "ppo": 4, "evaluation": 44}


def leaves(tree: Any) -> list[Any]:
    return [leaf for value in tree.values() for leaf in leaves(value)] if isinstance(tree, dict) else [tree]


def assert_few_numbers(folder: Path) -> None:
    """Assert that the metrics in `folder` have the numbers of the default contestants, and nothing else."""
    found = {file.stem: leaves(json.loads(file.read_text())) for file in folder.iterdir()}
    assert {name: len(values) for name, values in found.items()} == COUNTS
    assert sum(COUNTS.values()) == 60
    assert {type(value) for values in found.values() for value in values} <= {int, float}


def test_the_metrics_of_a_run_are_60_numbers(finished_world: World) -> None:
    assert_few_numbers(finished_world / "metrics")
    tree = json.loads((finished_world / "metrics/evaluation.json").read_text())
    assert list(tree) == ["base", "sft", "rlhf", "improvement", "improvement_over_sft"]
    assert tuple(tree["base"]) == tuple(tree["sft"]) == OF_CONTESTANT
    assert tuple(tree["rlhf"]) == (*OF_CONTESTANT, "kl_to_sft")
    assert metrics_of(json.loads((finished_world / "reports/evaluation.json").read_text())) == tree


def test_the_committed_metrics_are_60_numbers() -> None:
    assert_few_numbers(ROOT / "metrics")


def result(judges: tuple[str, ...] = ("classifier", "lexicon", "reward")) -> dict[str, Any]:
    """Return a tree of the shape of reports/evaluation.json. The figures of a contestant are 0, 0.001, 0.002 and so on."""
    keys = [*OF_CONTESTANT, *SHARES, "kl_to_sft", "guards_crossed"]
    figures = {key: number / 1000 for number, key in enumerate(keys) if key != "lexicon_positive" or "lexicon" in judges}
    gain = dict.fromkeys((*OF_COMPARISON, "p_holm", "p_wilcoxon", "p_mcnemar", "prompts_needed"), 0.1)
    exams = {name: {"accuracy": 0.9, "accuracy_cut": 0.8, "ece": 0.1, "ece_cut": 0.2} for name in judges}
    kappa = {f"{one}_{other}": 0.5 for i, one in enumerate(judges) for other in judges[i + 1 :]}
    rest = {"prompts": 20, "judges": exams, "kappa": kappa, "annotators": {"agree": 0.75}, "reward_hacking_gap": 0.1}
    return {name: dict(figures) for name in CONTESTANTS} | dict.fromkeys(COMPARISONS, gain) | rest


def test_only_contestants_add_to_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(leaves(metrics_of(result()))) == 44
    assert len(leaves(metrics_of(result(("classifier", "lexicon", "reward", "mine", "other"))))) == 44
    without = metrics_of(result(("classifier", "reward")))
    assert len(leaves(without)) == 44 - 3
    assert not [key for name in CONTESTANTS for key in without[name] if key == "lexicon_positive"]
    one = Contestant("dpo", "DPO", "models/dpo", {"dpo_over_base": "base", "dpo_over_sft": "sft"})
    monkeypatch.setitem(CONTESTANTS, "dpo", one)
    for key, other in one.compared_with.items():
        monkeypatch.setitem(COMPARISONS, key, ("dpo", other))
    assert len(leaves(metrics_of(result()))) == 44 + 10 + 2 * 8


def test_the_tables_in_plots_have_the_other_figures() -> None:
    tree = result()
    tree["rlhf"]["distinct_1"] = None
    del tree["base"]["grammar_parses"]
    rows = shares(tree)
    assert len(rows) == 9 * 3 - 2, "an absent figure has no row, because a blank cell would be drawn as 0"
    assert rows[0] == {"model": "base", "figure": "distinct_1", "value": 0.009}
    values = {row["figure"]: row["value"] for row in about_judges(tree)}
    assert len(values) == 3 * 4 + 3 + 1
    assert values["ece_cut, lexicon"] == 0.2
    assert values["kappa, classifier and reward"] == 0.5
    assert values["agree, classifier and annotators"] == 0.75


def test_the_tables_of_a_run_agree_with_its_report(finished_world: World) -> None:
    report = json.loads((finished_world / "reports/evaluation.json").read_text())
    for row in csv.DictReader((finished_world / "plots/figures.csv").open()):
        assert float(row["value"]) == report[row["model"]][row["figure"]]
        assert 0 <= float(row["value"]) <= 1
    judges = {row["figure"]: float(row["value"]) for row in csv.DictReader((finished_world / "plots/judges.csv").open())}
    assert judges["accuracy_cut, lexicon"] == report["judges"]["lexicon"]["accuracy_cut"]


def read_answers(world: World) -> pd.DataFrame:
    return pd.read_csv(world / "reports/answers.csv.gz", keep_default_na=False)


def test_the_answers_of_a_run_give_its_figures_again(finished_world: World) -> None:
    table = read_answers(finished_world)
    judges = [f"{name}_positive" for name in ("classifier", "lexicon", "reward")]
    assert list(table) == ["prompt", "model", "sample", "response", "tokens", "finished", *judges]
    tree = json.loads((finished_world / "metrics/evaluation.json").read_text())
    for model in CONTESTANTS:
        rows = [json.loads(line) for line in (finished_world / f"data/samples/{model}.jsonl").read_text().splitlines()]
        part = table[table["model"] == model]
        for column in ("prompt", "sample", "response", "finished"):
            assert part[column].tolist() == [row[column] for row in rows], column
        assert part["tokens"].tolist() == [len(row["tokens"]) for row in rows]
        assert part["classifier_positive"].mean() == pytest.approx(tree[model]["mean_positive"], abs=1e-4)
        assert (part["classifier_positive"] > 0.5).mean() == pytest.approx(tree[model]["positive_ratio"], abs=1e-4)
        assert (part["lexicon_positive"] > 0.5).mean() == pytest.approx(tree[model]["lexicon_positive"], abs=1e-4)
    gain = (
        table[table["model"] == "rlhf"].groupby("prompt")["classifier_positive"].mean()
        - table[table["model"] == "sft"].groupby("prompt")["classifier_positive"].mean()
    )
    assert gain.mean() == pytest.approx(tree["improvement_over_sft"]["mean_positive"], abs=1e-4)


def test_a_file_of_answers_has_no_time_and_no_name(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"response": ["a\rb, c", " \N{PILE OF POO}"], "finished": [True, False], "lexicon_positive": [1 / 3, 0.5]}
    )
    for name in ("one.csv.gz", "two.csv.gz"):
        write_answers(tmp_path / name, table)
    data = (tmp_path / "one.csv.gz").read_bytes()
    assert data == (tmp_path / "two.csv.gz").read_bytes()
    assert data[3] == 0, "no flag, and so no name (RFC 1952)"
    assert data[4:8] == b"\0\0\0\0", "no time"
    said = '"response","finished","lexicon_positive"\n"a\rb, c",True,0.333333\n" \N{PILE OF POO}",False,0.5\n'
    assert gzip.decompress(data).decode() == said
    assert pd.read_csv(tmp_path / "one.csv.gz").equals(table.round(6))


def test_the_figures_of_base_depend_on_no_other_answer(world: World, run_stage: RunStage) -> None:
    """Answers of rlhf that are other and shorter change no figure of base and sft in the metrics, and no answer of theirs."""
    before, table = json.loads((world / "metrics/evaluation.json").read_text()), read_answers(world)
    for name in ("rlhf", "rlhf_rollout"):
        file = world / f"data/samples/{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.unlink()  # a link to the cache
        file.write_text("".join(json.dumps(row | {"response": " warm", "tokens": row["tokens"][:6]}) + "\n" for row in rows))
    run_stage(world, "evaluate")
    after = json.loads((world / "metrics/evaluation.json").read_text())
    for name in ("base", "sft"):
        assert json.dumps(after[name]) == json.dumps(before[name])
        assert read_answers(world)[table["model"] == name].equals(table[table["model"] == name])
    assert {key for key in after["rlhf"] if after["rlhf"][key] == before["rlhf"][key]} <= {"samples", "lexicon_positive"}


def test_too_few_tokens_give_no_distinct_figure_and_one_warning(world: World, run_stage: RunStage) -> None:
    world.set("evaluate.distinct_tokens", 481)
    said = run_stage(world, "evaluate").err
    (warning,) = [line for line in said.splitlines() if "distinct_tokens" in line]
    assert warning.startswith("evaluate: warning: ")
    assert "evaluate.distinct_tokens 481" in warning
    assert warning.endswith("base 480, sft 480, rlhf 480"), "40 answers of 12 tokens each"
    tree = json.loads((world / "metrics/evaluation.json").read_text())
    assert [tree[name]["distinct_2"] for name in CONTESTANTS] == [None, None, None]
    assert len(leaves(tree)) == 44
    assert "| distinct bigrams | - | - | - |" in (world / "reports/report.md").read_text()
    assert "distinct_" not in (world / "plots/figures.csv").read_text()
    before = outs(world, "metrics", "plots", "reports")
    world.set("evaluate.distinct_tokens", 480)
    run_stage(world, "evaluate")
    assert outs(world, "metrics", "plots", "reports") != before
    tree = json.loads((world / "metrics/evaluation.json").read_text())
    assert all(0 < tree[name]["distinct_2"] <= 1 for name in CONTESTANTS)
