"""`make sweep`: the file of a sweep, trials that stop and go on, and the choice at bounded KL."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

import sweep
import sweep_page
from rlhf_sentiment.engine.errors import ConfigError, StageError, Stopped
from sweep_spec import Spec, read_spec

from .conftest import ROOT, assert_names, checkout, tiny_params

PARAMS = (ROOT / "params.yaml").read_text()
GRID: dict[str, Any] = {"params": {"ppo.kl_coef": [0.3, 0.1, 1.0]}, "sampler": "grid", "max_kl": 10.0}
TPE: dict[str, Any] = {"sampler": "tpe", "trials": 3}
RANGES = {"ppo.kl_coef": {"low": 0.05, "high": 1.0, "log": True}, "ppo.ppo_epochs": {"low": 1, "high": 4, "int": True}}


def spec(**changes: Any) -> Spec:
    return Spec.model_validate(GRID | changes)


def searching(sampler: str = "tpe", trials: int = 6) -> Spec:
    return spec(params=RANGES, sampler=sampler, trials=trials)


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_sweeps_fit_params_yaml(path: Path) -> None:
    assert read_spec(path, PARAMS).wanted >= 5


def test_a_grid_has_all_combinations_in_the_order_of_the_file() -> None:
    grid = spec(params={"ppo.kl_coef": [0.3, 0.1], "ppo.ppo_epochs": [4, 2]})
    assert [list(one.values()) for one in grid.combinations] == [[0.3, 4], [0.3, 2], [0.1, 4], [0.1, 2]]
    assert grid.wanted == 4


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"params": {"ppo.kl_coeff": [1.0]}}, ("ppo.kl_coeff", "ppo.kl_coef?")),
        ({"params": {"ppoo.kl_coef": [1.0]}}, ("ppoo", "no such section")),
        ({"params": {"ppo.kl_coef": [0.1, -1.0]}}, ("ppo.kl_coef=-1.0", "greater than or equal to 0")),
        ({"params": {"ppo.minibatches": [1, 3]}}, ("ppo.minibatches=3", "ppo.batch_size (64)")),
        ({"params": {"ppo.kl_coef": 1.0}}, ("params.ppo.kl_coef", "a list of values, or a range", "1.0")),
        ({"params": {"ppo.kl_coef": []}}, ("params.ppo.kl_coef", "at least one value")),
        ({"params": {"ppo.kl_coef": [[1.0]]}}, ("params.ppo.kl_coef", "no lists")),
        ({"params": {"ppo.kl_coef": [0.1, 0.2, 0.1]}}, ("params.ppo.kl_coef", "each value once (got 0.1 twice)")),
        ({"params": {"ppo.kl_coef": [1, 1.0]}}, ("params.ppo.kl_coef", "each value once")),
        ({"params": {}}, ("params", "at least one key of params.yaml")),
        ({"params": [1]}, ("params", "a section, with keys of params.yaml")),
        ({"params": {"seed": [1, 2]}}, ("seed", "a sweep keeps seed")),
        ({"params": {"data.seed": [1, 2]}}, ("data.seed", "comparable")),
        ({"params": {"evaluate.split": ["test"]}}, ("evaluate.split", "comparable")),
        ({"params": RANGES}, ("params.ppo.kl_coef", "a grid needs a list", "tpe")),
        ({"params": RANGES, "sampler": "tpe"}, ("trials", "number of trials")),
        ({"trials": 3}, ("trials", "a grid has as many as it has combinations")),
        (TPE | {"params": {"ppo.kl_coef": {"low": 2.0, "high": 1.0}}}, ("ppo.kl_coef", "low", "high")),
        (TPE | {"params": {"ppo.kl_coef": {"low": "a", "high": 1.0}}}, ("ppo.kl_coef", "a range", "'a'")),
        (TPE | {"params": {"ppo.kl_coef": {"low": 0.1}}}, ("params.ppo.kl_coef", "low: 0.1, high")),
        (TPE | {"params": {"ppo.ppo_epochs": {"low": 1, "high": 2.5, "int": True}}}, ("ppo_epochs", "2.5")),
        (TPE | {"params": {"ppo.kl_coef": {"low": -1.0, "high": 1.0}}}, ("ppo.kl_coef=-1.0",)),
        ({"sampler": "bayes"}, ("sampler", "'tpe'")),
        ({"max_kl": 0}, ("max_kl", "greater than 0")),
        ({"max_kl": None}, ("max_kl", "number")),
        ({"bound": 1}, ("bound", "unknown key; a sweep has", "max_kl")),
    ],
)  # fmt: skip
def test_a_wrong_sweep_gets_one_line(tmp_path: Path, changes: dict[str, Any], named: tuple[str, ...]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GRID | changes))
    with pytest.raises(ConfigError) as error:
        read_spec(file, PARAMS)
    (line,) = str(error.value).splitlines()
    assert_names(line, f"{file}: ", *named)


def test_a_missing_file_and_a_name_that_is_no_word_are_refused(tmp_path: Path) -> None:
    for name, named in (("none.yaml", "no such file"), ("a b.yaml", "NAME.yaml"), ("kl.yml", "NAME.yaml")):
        with pytest.raises(ConfigError) as error:
            read_spec(tmp_path / name, PARAMS)
        assert_names(error.value, name, named)


FEWER = False  # whether the answers have too few tokens for distinct bigrams


def metrics(positive: float, kl: float) -> dict[str, Any]:
    figures = {
        "evaluation.rlhf.mean_positive": positive,
        "evaluation.rlhf.kl_to_sft": kl,
        "evaluation.rlhf.perplexity": 20.0,
        "evaluation.rlhf.distinct_2": 0.5,
        "evaluation.rlhf.samples": 256,
        "evaluation.improvement_over_sft.mean_positive": positive - 0.5,
        "evaluation.improvement_over_sft.ci_low": positive - 0.55,
        "evaluation.improvement_over_sft.ci_high": positive - 0.45,
    }
    if FEWER:
        del figures["evaluation.rlhf.distinct_2"]
    return {"metrics": figures, "commit": "a" * 40}


def answer(_: int, params: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a trial: with a smaller coefficient, sentiment and KL are higher."""
    return metrics(1 - params["ppo.kl_coef"] / 2, 2 / params["ppo.kl_coef"])


def tried(study: Any) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials(states=[TrialState.COMPLETE])]


def test_a_grid_runs_in_its_order_and_a_failed_trial_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(number: int, params: dict[str, Any]) -> dict[str, Any]:
        if params["ppo.kl_coef"] == 0.1:
            raise StageError("no memory")
        return answer(number, params)

    study = sweep.open_study(tmp_path, "kl", spec())
    assert sweep.run_trials(study, spec(), fail) == 1
    assert [one["ppo.kl_coef"] for one in tried(study)] == [0.3, 1.0]
    assert capsys.readouterr().err == "sweep: trial 1 failed: no memory\n"
    study = sweep.open_study(tmp_path, "kl", spec())
    assert sweep.run_trials(study, spec(), answer) == 0
    assert [one["ppo.kl_coef"] for one in tried(study)] == [0.3, 1.0, 0.1]
    study = sweep.open_study(tmp_path, "kl", spec())
    assert sweep.run_trials(study, spec(), lambda *_: pytest.fail("nothing is left")) == 0


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_stopped_sweep_goes_on_with_the_trials_of_one_that_was_not_stopped(tmp_path: Path, sampler: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = sweep.open_study(tmp_path / "a", "kl", searching(sampler))
    sweep.run_trials(whole, searching(sampler), answer)
    assert len({tuple(one.values()) for one in tried(whole)}) == 6
    ran: list[dict[str, Any]] = []
    for stop in (2, 2, 0, 99):  # after two trials, after two more, at once, and never

        def stopping(number: int, params: dict[str, Any], stop: int = stop, before: int = len(ran)) -> dict[str, Any]:
            if len(ran) - before == stop:
                raise Stopped(2, "stopped by SIGINT")
            ran.append(params)
            return answer(number, params)

        study = sweep.open_study(tmp_path / "b", "kl", searching(sampler))
        try:
            sweep.run_trials(study, searching(sampler), stopping)
        except Stopped:
            continue
    assert tried(study) == tried(whole) == ran


def test_tpe_avoids_trials_beyond_the_bound(tmp_path: Path) -> None:
    """KL is 2 / kl_coef, so the bound of 10 nats is at kl_coef 0.2. Without a bound, 0.05 is best."""

    def within(max_kl: float) -> int:
        (tmp_path / f"{max_kl}").mkdir()
        searched = spec(params=RANGES, sampler="tpe", trials=15, max_kl=max_kl)
        study = sweep.open_study(tmp_path / f"{max_kl}", "kl", searched)
        sweep.run_trials(study, searched, answer)
        for trial in sweep.finished(study):
            assert trial.constraints == {"max_kl": 2 / trial.params["ppo.kl_coef"] - max_kl}
        return sum(one["ppo.kl_coef"] >= 0.2 for one in tried(study)[5:])

    assert within(10.0) >= 6 > 4 >= within(1000.0), "of ten trials"


def test_another_sweep_of_the_same_name_is_refused_and_another_bound_is_not(tmp_path: Path) -> None:
    sweep.open_study(tmp_path, "kl", spec())
    sweep.open_study(tmp_path, "kl", spec(max_kl=3.0))
    with pytest.raises(StageError) as error:
        sweep.open_study(tmp_path, "kl", spec(params={"ppo.kl_coef": [0.3]}))
    assert_names(error.value, "runs/sweeps/kl", "another kl.yaml", "rename")


def page_of(folder: Path, **changes: Any) -> tuple[str, pd.DataFrame]:
    """Return the page and the table of the grid, whose KL are 6.67, 20 and 2 nats."""
    (folder / "study").mkdir(exist_ok=True)
    study = sweep.open_study(folder / "study", "kl", spec())
    sweep.run_trials(study, spec(), answer)
    params = yaml.safe_load(PARAMS)
    path = sweep_page.write_page(folder, folder / "my sweeps/kl.yaml", spec(**changes), sweep.finished(study), params)
    return (folder / path).read_text(), pd.read_csv((folder / path).with_suffix(".csv"))


def test_the_best_within_the_bound_is_chosen(tmp_path: Path) -> None:
    text, table = page_of(tmp_path)
    assert table["ppo.kl_coef"].tolist() == [0.3, 1.0, 0.1], "0.1 has 20 nats, and comes last"
    assert table["P(positive)"].tolist() == [0.85, 0.5, 0.95]
    assert table["within"].tolist() == [True, True, False]
    chosen = text.splitlines()[2]
    assert_names(chosen, "`ppo.kl_coef=0.3` (trial 0)", "0.850 at 6.67 nats", "at most 10 nats", "128 validation prompts")
    assert_names(chosen, "with seed 1", "The test prompts were not used", "`dvc exp run -S ppo.kl_coef=0.3`")
    text, table = page_of(tmp_path, max_kl=30.0)
    assert table["ppo.kl_coef"].tolist() == [0.1, 0.3, 1.0]
    assert "`ppo.kl_coef=0.1`" in text.splitlines()[2]
    assert "Nothing is chosen" in page_of(tmp_path, max_kl=1.0)[0]


def test_the_page_names_the_file_of_the_sweep(tmp_path: Path) -> None:
    assert "`make sweep SPEC='my sweeps/kl.yaml'` made this page" in page_of(tmp_path)[0]
    trials, params = sweep.finished(sweep.open_study(tmp_path / "study", "kl", spec())), yaml.safe_load(PARAMS)
    path = sweep_page.write_page(tmp_path / "elsewhere", tmp_path / "kl.yaml", spec(), trials, params)
    text = (tmp_path / "elsewhere" / path).read_text()
    assert "`make sweep SPEC=kl.yaml` made this page" in text
    assert str(tmp_path) not in text


def test_equal_trials_are_named_and_share_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials 0 and 2 have equal figures. Trial 1 has the same P(positive) at more KL, and trial 3 lies beyond the bound."""
    labels: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.annotate", lambda _, text, *__, **___: labels.append(text))
    grid = spec(params={"ppo.kl_coef": [0.3, 0.2, 1.0, 0.1]})
    study = sweep.open_study(tmp_path, "kl", grid)
    kl = {0.3: 4.0, 0.2: 5.0, 1.0: 4.0, 0.1: 11.0}
    sweep.run_trials(study, grid, lambda _, params: metrics(0.9, kl[params["ppo.kl_coef"]]))
    path = sweep_page.write_page(tmp_path, Path("kl.yaml"), grid, sweep.finished(study), yaml.safe_load(PARAMS))
    chosen = (tmp_path / path).read_text().splitlines()[2]
    assert_names(chosen, "(trial 0)", "Trial 2, 1 has the same. Of equals, the lowest KL and number come first.")
    assert sorted(labels) == ["0.1", "0.2", "0.3, 1"]


def test_more_trials_go_on_from_those_that_are_finished(tmp_path: Path) -> None:
    sweep.run_trials(sweep.open_study(tmp_path, "kl", searching(trials=3)), searching(trials=3), answer)
    study = sweep.open_study(tmp_path, "kl", searching(trials=5))
    before = tried(study)
    numbers: list[int] = []
    sweep.run_trials(study, searching(trials=5), lambda number, params: numbers.append(number) or answer(number, params))  # type: ignore[func-returns-value]
    assert numbers == [3, 4]
    assert tried(study)[:3] == before
    fewer = sweep.open_study(tmp_path, "kl", searching(trials=2))
    assert sweep.run_trials(fewer, searching(trials=2), lambda *_: pytest.fail("five are finished")) == 0


def test_an_absent_figure_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate` counts no distinct bigrams where the answers have fewer tokens than `evaluate.distinct_tokens`."""
    monkeypatch.setitem(globals(), "FEWER", True)
    text, _ = page_of(tmp_path)
    assert "perplexity" in text
    assert "distinct bigrams" not in text
    assert "nan" not in text


def test_the_same_trials_give_the_same_bytes(tmp_path: Path) -> None:
    def files() -> list[bytes]:
        page_of(tmp_path)
        return [path.read_bytes() for path in sorted((tmp_path / "docs/results/sweeps").iterdir())]

    assert files() == files()


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), (0.1, "0.1"), (1e-05, "1e-05"), (3, "3"), ("shared", "shared")]
)
def test_values_are_written_as_dvc_takes_them(value: Any, text: str) -> None:
    assert sweep_page.written(value) == text


@pytest.mark.slow
@pytest.mark.thorough
def test_a_sweep_of_the_tiny_world_uses_validation_prompts_alone(tmp_path: Path) -> None:
    world = checkout(tmp_path / "world", tiny_params())
    (world / "sweeps/tiny.yaml").write_text(yaml.safe_dump(GRID | {"params": {"ppo.kl_coef": [0.3, 0.1]}}))
    said = world.run(sys.executable, "tools/sweep.py", "sweeps/tiny.yaml")
    assert "sweep: wrote docs/results/sweeps/tiny.md" in said
    assert "trial 1: base" not in said, "only PPO and later stages run again"
    assert_names((world / "docs/results/sweeps/tiny.md").read_text(), "8 validation prompts", "2 of 2 trials")
    prompts = pd.read_json(world / "runs/sweeps/tiny/copy/data/prepared/prompts.jsonl", lines=True)
    for name in ("base", "sft", "rlhf", "base_rollout", "rlhf_rollout"):
        answers = pd.read_json(world / f"runs/sweeps/tiny/copy/data/samples/{name}.jsonl", lines=True)
        assert set(answers["prompt"]) == set(prompts["prompt"][prompts["split"] == "validation"])
    assert "evaluate.split" not in world.run("git", "status", "--porcelain")
    said = world.run(sys.executable, "tools/sweep.py", "sweeps/tiny.yaml")
    assert "trial" not in said.replace("trials", "")
