"""The real scripts and DVC in a tiny world: which stages rerun, what reviewers see, and stages without DVC."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rlhf_sentiment.evaluation.contestants import CONTESTANTS

from .browser import CHROMIUM, NO_CHROMIUM, plots_of
from .conftest import ROOT, RunStage, World, assert_names, outs, the_error, write_classifier

SAMPLES = [f"sample@{name}" for name in CONTESTANTS]
ALL = ["check", "hashes", "prepare", "base", "sft", "reward", "judge", "ppo", *SAMPLES, "evaluate"]


def test_the_first_run_runs_every_stage(finished_world: World) -> None:
    output = finished_world.first_output  # type: ignore[attr-defined]
    ran = finished_world.stages_run(output)
    assert sorted(ran) == sorted(ALL)
    for name in ALL:
        assert f"{name}: reads" in output
        assert f"{name}: wrote" in output
    assert_names(output, "Base against RLHF", "mean P(positive)", "perplexity")


def test_report_and_figures_are_complete(finished_world: World) -> None:
    result = json.loads((finished_world / "reports/evaluation.json").read_text())
    shape = {"mean_positive", "std_positive", "positive_ratio", "lexicon_positive", "reward", "perplexity", "distinct_2"}
    shape |= {
        "grammar_positive",
        "reward_positive",
        "distinct_1",
        "distinct_3",
        "self_bleu",
        "repetition",
        "duplicated",
        "cut_off",
    }
    for model in CONTESTANTS:
        assert shape | {"response_tokens", "samples", "kl_to_sft", "guards_crossed", "grammar_parses"} == result[model].keys()
        assert result[model]["samples"] == 20 * 2
    assert result["sft"]["kl_to_sft"] == 0 < result["rlhf"]["kl_to_sft"]
    for judge in ("classifier", "lexicon", "reward"):
        assert result["judges"][judge].keys() == {"accuracy", "accuracy_cut", "ece", "ece_cut"}
    assert result["kappa"].keys() == {"classifier_lexicon", "classifier_reward", "lexicon_reward"}
    pairs = {"improvement": ("rlhf", "base"), "improvement_over_sft": ("rlhf", "sft"), "sft_over_base": ("sft", "base")}
    for key, (one, other) in pairs.items():
        gain = result[key]
        difference = result[one]["mean_positive"] - result[other]["mean_positive"]
        assert gain["mean_positive"] == pytest.approx(difference, abs=2e-4)
        assert gain["ci_low"] <= gain["mean_positive"] <= gain["ci_high"]
        assert {"p_value", "effect_size", "positive_ratio", "positive_ratio_ci_low", "positive_ratio_ci_high"} <= gain.keys()
        assert {"p_holm", "p_wilcoxon", "p_mcnemar", "prompts_needed"} <= gain.keys()
        assert gain["p_holm"] >= gain["p_value"]
    report = (finished_world / "reports/report.md").read_text()
    assert report.count("- rlhf (") == 3, "the report lists three samples"
    for picture in ("training", "ppo", "comparison", "distribution", "reliability", "frontier"):
        assert (finished_world / f"plots/{picture}.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((finished_world / "plots/samples.csv").open()))
    assert len(rows) == 5
    validation = [float(row["kl"]) for row in csv.DictReader((finished_world / "plots/ppo_validation.csv").open())]
    assert validation[0] == 0, "before the first step the policy is its reference"
    assert validation[-1] > 0


def test_the_reward_hacking_gap_is_the_gain_in_reward_less_the_gain_in_positivity(finished_world: World) -> None:
    from rlhf_sentiment.evaluation.classifier import Judge
    from rlhf_sentiment.evaluation.panel import answer_scores
    from rlhf_sentiment.models.loading import load_reward_model, load_tokenizer

    models = finished_world / "models"
    reward, tokenizer = load_reward_model(models / "reward"), load_tokenizer(models / "base")
    scores, positive = {}, {}
    for name in ("sft", "rlhf"):
        rows = [json.loads(line) for line in (finished_world / f"data/samples/{name}.jsonl").read_text().splitlines()]
        scores[name] = answer_scores(reward, tokenizer, rows)
        positive[name] = Judge.load(models / "judge").positive([row["response"] for row in rows])
    rises = [(after["rlhf"].mean() - after["sft"].mean()) / after["sft"].std(ddof=1) for after in (scores, positive)]
    result = json.loads((finished_world / "reports/evaluation.json").read_text())
    assert result["reward_hacking_gap"] == pytest.approx(rises[0] - rises[1], abs=1e-4)
    assert abs(rises[0] - rises[1]) > 2e-4, "the gap is not 0, so its sign counts"


def test_the_reward_model_trains_on_no_text_of_the_judge(finished_world: World) -> None:
    """The reward model trains on no text of the judge's training data and no near-duplicate. All pairs are compared exactly."""
    from rlhf_sentiment.data.near_duplicates import shingles

    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (finished_world / f"data/prepared/{name}.jsonl").read_text().splitlines()]

    trained = [row["prompt"] + row[side] for row in rows("preferences") for side in ("chosen", "rejected")]
    judges = [row["text"] for row in rows("labelled")]
    assert len(trained) == 160
    assert len(judges) > 200
    for text in judges:
        for other in trained:
            one, two = shingles(text), shingles(other)
            assert len(one & two) / len(one | two) < 0.6, (text, other)


def test_no_test_prompt_is_trained_on(finished_world: World) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (finished_world / f"data/prepared/{name}.jsonl").read_text().splitlines()]

    test = {row["prompt"] for row in rows("prompts") if row["split"] == "test"}
    assert len(test) == 20
    for name in ("corpus", "sft", "preferences"):
        assert not test & {row["prompt"] for row in rows(name)}
    assert not test & {row["prompt"] for row in rows("prompts") if row["split"] != "test"}


def test_each_row_of_a_file_is_counted_once(finished_world: World) -> None:
    figures = json.loads((finished_world / "reports/data.json").read_text())
    account = figures["files"]["grammar"]
    parts = ("rows_kept", "rows_rejected", "duplicates_dropped", "overlap_dropped")
    assert account["rows_read"] == sum(account[part] for part in parts)
    in_tables = sum(sum(split.values()) for split in figures["splits"].values())
    assert account["rows_kept"] == in_tables + sum(figures["dropped"].values())
    dropped = (finished_world / "data/prepared/rejected.jsonl").read_text().splitlines()
    assert len(dropped) == account["duplicates_dropped"] + account["overlap_dropped"]
    assert json.loads((finished_world / "metrics/data.json").read_text()) == account, "there is one file"
    rows = {row["rows"]: int(row["count"]) for row in csv.DictReader((finished_world / "plots/rows.csv").open())}
    assert rows["grammar, read"] == account["rows_read"]
    assert rows["prompts, validation"] == figures["splits"]["prompts"]["validation"] == 8
    assert len(rows) == len(account) + sum(map(len, figures["splits"].values()))


def test_prompts_that_are_too_long_are_left_out_and_counted(world: World, run_stage: RunStage) -> None:
    world.set("ppo.max_new_tokens", 150)
    run_stage(world, "ppo")
    rows = [json.loads(line) for line in (world / "data/prepared/prompts.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["split"] != "test"]
    assert 0 < json.loads((world / "reports/ppo.json").read_text())["prompts_too_long"] < len(asked)
    world.set("ppo.max_new_tokens", 12)
    run_stage(world, "ppo")
    assert json.loads((world / "reports/ppo.json").read_text())["prompts_too_long"] == 0
    (world / "prompts/long.txt").write_text("The film was\n" + "very " * 200 + "\nI saw\n")
    world.set("evaluate.prompts_file", "prompts/long.txt")
    for name in CONTESTANTS:
        assert "2 prompts x 2" in run_stage(world, "sample", name).out
        assert json.loads((world / f"reports/sample_{name}.json").read_text()) == {"prompts": 2, "prompts_too_long": 1}


def test_outputs_contain_no_path_of_the_machine(finished_world: World) -> None:
    for name, content in outs(finished_world, "data", "models", "metrics", "plots", "reports").items():
        assert str(finished_world.folder).encode() not in content, name
        assert b"/tmp/" not in content, name
        assert Path(name).suffix not in {".bin", ".pt", ".pkl"}, name


def test_a_second_repro_runs_no_stage(world: World) -> None:
    output = world.run("dvc", "repro")
    assert world.stages_run(output) == []
    assert "Data and pipelines are up to date." in output  # the words of DVC


def test_a_change_of_guards_does_not_sample_again_and_more_samples_do(world: World) -> None:
    world.set("evaluate.guards.max_kl", 0.0)
    output = world.run("dvc", "repro")
    assert world.stages_run(output) == ["check", "evaluate"]
    assert_names(output, "evaluate: warning: rlhf: kl_to_sft ")
    before = (world / "data/samples/rlhf.jsonl").read_text().splitlines()
    world.set("evaluate.samples_per_prompt", 3)
    assert sorted(world.stages_run(world.run("dvc", "repro"))) == sorted(["check", *SAMPLES, "evaluate"])
    after = (world / "data/samples/rlhf.jsonl").read_text().splitlines()
    assert len(after) == 20 * 3
    assert [line for i, line in enumerate(after) if i % 3 < 2] == before, "the first answers stay the same"


def test_samples_of_a_model_do_not_depend_on_the_other_models(world: World, run_stage: RunStage) -> None:
    """The samples of base and sft do not depend on the RLHF model."""
    before = outs(world, "data/samples")
    shutil.rmtree(world / "models/ppo")
    shutil.copytree(world / "models/base", world / "models/ppo")
    for name in CONTESTANTS:
        run_stage(world, "sample", name)
    after = outs(world, "data/samples")
    assert {name for name in before if before[name] != after[name]} == {
        "data/samples/rlhf.jsonl",
        "data/samples/rlhf_rollout.jsonl",
    }
    assert after["data/samples/rlhf.jsonl"] == after["data/samples/base.jsonl"], "the same model gives the same samples"


def test_a_model_that_repeats_one_word_crosses_guards(world: World, run_stage: RunStage) -> None:
    from rlhf_sentiment.models.loading import load_tokenizer

    tokenizer = load_tokenizer(world / "models/base")
    said = " wonderful" * 4
    tokens = tokenizer(said)["input_ids"]
    for name in ("rlhf", "rlhf_rollout"):
        file = world / f"data/samples/{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [json.dumps(row | {"response": said, "tokens": tokens, "finished": False}) + "\n" for row in rows]
        file.unlink()  # a link to the cache
        file.write_text("".join(lines))
    output = run_stage(world, "evaluate").err
    result = json.loads((world / "reports/evaluation.json").read_text())
    for key in ("distinct_2", "self_bleu", "repetition", "duplicated"):
        assert f"evaluate: warning: rlhf: {key} " in output
    assert result["rlhf"]["guards_crossed"] >= 4
    assert "warning: rlhf: repetition " in (world / "reports/report.md").read_text()


def test_validation_prompts_are_answered_and_judged(world: World, run_stage: RunStage) -> None:
    """With `evaluate.split: validation`, no test prompt is answered, and report and headline say so."""
    world.set("evaluate.split", "validation")
    world.set("evaluate.num_samples", 8)
    prompts = [json.loads(line) for line in (world / "data/prepared/prompts.jsonl").read_text().splitlines()]
    for name in CONTESTANTS:
        run_stage(world, "sample", name)
        answers = [json.loads(line)["prompt"] for line in (world / f"data/samples/{name}.jsonl").read_text().splitlines()]
        assert set(answers) == {row["prompt"] for row in prompts if row["split"] == "validation"}
    ended = run_stage(world, "evaluate")
    assert ended.out.splitlines()[-1].endswith("in mean P(positive) on validation prompts")
    assert "the answers are to validation prompts (evaluate.split)" in ended.err
    assert "- warning: the answers are to validation prompts" in (world / "reports/report.md").read_text()


def test_prompts_and_a_judge_of_the_user_are_used(world: World, run_stage: RunStage) -> None:
    """`evaluate.prompts_file` and a classifier of the user work, and compare.py gives the numbers of the stage."""
    import torch

    from rlhf_sentiment.evaluation.judges import classifier_of

    write_classifier(world / "models/pretrained/stars.v2", ["NEGATIVE", "POSITIVE"])
    (world / "prompts/mine.txt").write_text("The film was\nI saw this\nWhat makes you happy?\n")
    world.set("evaluate.prompts_file", "prompts/mine.txt")
    world.set("evaluate.samples_per_prompt", 4)
    world.set("evaluate.judges", ["classifier", "models/pretrained/stars.v2"])
    ran = world.stages_run(world.run("dvc", "repro"))
    assert sorted(ran) == sorted(["check", "hashes", "prepare", *SAMPLES, "evaluate"])
    result = json.loads((world / "reports/evaluation.json").read_text())
    assert result["judges"].keys() == {"classifier", "stars_v2"}
    assert result["kappa"].keys() == {"classifier_stars_v2"}
    rows = [json.loads(line) for line in (world / "data/samples/rlhf.jsonl").read_text().splitlines()]
    opinion = classifier_of(str(world / "models/pretrained/stars.v2"), torch.device("cpu"))([row["response"] for row in rows])
    assert result["rlhf"]["stars_v2_positive"] == pytest.approx((opinion > 0.5).mean(), abs=1e-4)
    assert "lexicon_positive" not in result["rlhf"]
    run_stage(world, "compare", "--prompts", "prompts/mine.txt", "--samples", "4", "--csv", "answers.csv")
    answers = list(csv.DictReader((world / "answers.csv").open()))
    assert len(answers) == 3 * len(CONTESTANTS) * 4
    for model in CONTESTANTS:
        assert result[model]["samples"] == 12
        positive = [float(row["positive"]) for row in answers if row["model"] == model]
        assert sum(positive) / 12 == pytest.approx(result[model]["mean_positive"], abs=1e-4)


def test_a_change_of_report_to_reruns_only_check(world: World) -> None:
    world.set("report_to", "tensorboard")
    output = world.run("dvc", "repro")
    assert world.stages_run(output) == ["check"]
    (warning,) = [line for line in output.splitlines() if line.startswith("check: warning: ")]
    assert_names(warning, "tensorboard", "dvc repro --force")
    world.set("report_to", ["tensorboard"])
    world.set("judge.strength", 0.5)
    output = world.run("dvc", "repro", "judge")
    assert world.stages_run(output) == ["check", "judge"]
    assert "check: warning: " not in output
    assert "judge: reports to tensorboard: runs/tensorboard/" in output


def test_compare_writes_its_csv_if_stdout_is_closed(finished_world: World, tmp_path: Path) -> None:
    compare = f"python stages/compare.py --prompt 'The film was' --prompt 'I saw' --csv {tmp_path}/answers.csv"
    finished_world.run("bash", "-c", f"{compare} 2>/dev/null | true")
    assert len(list(csv.DictReader((tmp_path / "answers.csv").open()))) == 2 * len(CONTESTANTS)


def test_ppo_takes_the_number_of_steps_in_the_settings(finished_world: World) -> None:
    steps, batch, epochs = 2, 8, 2  # of the tiny world, with one minibatch
    figures = json.loads((finished_world / "reports/ppo.json").read_text())
    assert (figures["steps"], figures["episodes"], figures["optimizer_steps"]) == (steps, steps * batch, steps * epochs)
    curve = list(csv.DictReader((finished_world / "plots/ppo.csv").open()))
    assert [int(row["step"]) for row in curve] == [1, 2]
    assert float(curve[0]["kl_penalty"]) == float(curve[0]["kl_k3"]) == 0.0, "the policy is still its reference"


def test_ppo_runs_with_a_separate_critic_in_bfloat16(world: World, run_stage: RunStage) -> None:
    before = (world / "models/ppo/critic.safetensors").stat().st_size
    world.set("ppo.critic", "separate")
    world.set("ppo.dtype", "bfloat16")
    world.set("arithmetic", "fast")
    run_stage(world, "ppo")
    assert (world / "models/ppo/critic.safetensors").stat().st_size > 5 * before, "a shared critic has no trunk"
    assert json.loads((world / "reports/ppo.json").read_text())["first_ratio_error"] == 0.0


def test_a_change_of_figures_reruns_only_evaluate(world: World) -> None:
    file = world / "stages/rlhf_sentiment/evaluation/plots.py"
    file.write_text(file.read_text() + "\n# another line\n")
    assert world.stages_run(world.run("dvc", "repro")) == ["evaluate"]


def test_an_unknown_key_is_refused_before_any_work(world: World) -> None:
    world.set("evaluate.confidense", 0.9)
    output = world.run("dvc", "repro", status=255)
    assert_names(the_error("check", output), "params.yaml", "evaluate.confidense", "evaluate.confidence?")
    assert world.stages_run(output) == ["check"]


def test_experiments_run_and_dvc_compares_commits_without_a_cache(world: World, tmp_path: Path) -> None:
    """`dvc exp run -S` works, and `dvc metrics diff` and `dvc plots diff` compare two commits of a clone without a cache.

    Chromium shows the plots without a network.
    """
    judged = "evaluate.judged='prompt and response'"
    output = world.run("dvc", "exp", "run", "-S", "ppo.steps=3", "-S", "ppo.learning_rate=1e-5", "-S", judged, "-n", "three")
    assert world.stages_run(output) == ["check", "ppo", "sample@rlhf", "evaluate"], "the samples of the other contestants stay"
    assert "1e-05" in (world / "params.yaml").read_text(), "DVC writes this form, and it is read as a number"
    assert json.loads((world / "metrics/ppo.json").read_text())["steps"] == 3
    world.commit("three steps")

    clone = World(tmp_path / "clone")
    subprocess.run(["git", "clone", "-q", str(world.folder), str(clone.folder)], check=True)
    assert not (clone / ".dvc/cache").exists()
    difference = json.loads(clone.run("dvc", "metrics", "diff", "HEAD~1", "--json"))
    assert difference["metrics/ppo.json"]["steps"] == {"old": 2, "new": 3, "diff": 1}
    for every in ([], ["--all"]):  # a default run changes more figures than this one
        lines = clone.run("dvc", "metrics", "diff", "HEAD~1", *every).splitlines()
        assert 15 < len(lines) <= 70
        assert max(map(len, lines)) <= 120
    assert "rlhf - sft: mean P(positive)" in clone.run("python", "tools/metrics.py", "HEAD~1")
    row, below = [line for line in world.run("python", "tools/experiments.py", "-n", "2").splitlines() if "three" in line]
    assert_names(row, "done", "see below")
    assert_names(below, "ppo.steps=3", "ppo.learning_rate=1e-05")
    assert "dvc exp run -S ppo.steps=200" in clone.run("python", "tools/experiments.py")
    page = clone.run("dvc", "plots", "diff", "HEAD~1")
    assert "index.html" in page
    assert "failed to load" not in page.lower()
    assert (clone / "dvc_plots/index.html").is_file()
    drawn = json.loads(clone.run("dvc", "plots", "diff", "HEAD~1", "--json"))
    assert "errors" not in drawn
    pipeline = yaml.safe_load((clone / "dvc.yaml").read_text())
    entries = [*pipeline["plots"], *(plot for stage in pipeline["stages"].values() for plot in stage.get("plots", []))]
    declared = {name for entry in entries for name in entry}
    assert declared == set(drawn["data"])
    for name, found in drawn["data"].items():
        assert {revision for entry in found for revision in entry["revisions"]} == {"HEAD~1", "workspace"}, name

    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    clone.run("python", "tools/plots_page.py")
    assert clone.run("git", "status", "--short") == ""
    for revisions in (["show"], ["diff", "HEAD~1"]):
        assert clone.run("dvc", "plots", *revisions) == f"{(clone / 'dvc_plots/index.html').as_uri()}\n"
        shown = plots_of(clone / "dvc_plots/index.html")
        assert shown.keys() == {re.sub("[/.]", "_", name) for name in declared}
        assert min(shown.values()) > 0, shown


@pytest.mark.parametrize("name", [*(name for name in ALL if name not in SAMPLES), "sample", "compare"])
def test_help_describes_a_stage(run_stage: RunStage, name: str) -> None:
    said = run_stage(World(ROOT), name, "--help").out
    assert "--params FILE" in said
    assert name != "sample" or ", ".join(CONTESTANTS) in said
    assert name == "compare" or ("Reads   " in said and "Writes  " in said)
    assert len(said.splitlines()) > 8


def test_a_stage_runs_alone_with_other_params(world: World, run_stage: RunStage) -> None:
    tree = yaml.safe_load((world / "params.yaml").read_text())
    tree["judge"]["ngrams"] = 1
    (world / "other.yaml").write_text(yaml.safe_dump(tree))
    before = (world / "metrics/judge.json").read_bytes()
    output = run_stage(world, "judge", "--params", "other.yaml").out
    first, second, *_ = output.splitlines()
    assert_names(first, "judge: reads", "data/prepared/labelled.jsonl")
    assert_names(second, "judge: wrote", "models/judge")
    assert (world / "metrics/judge.json").read_bytes() != before


def test_compare_shows_every_model(world: World, run_stage: RunStage) -> None:
    output = run_stage(
        world, "compare", "--prompt", "The film was", "--prompt", "I", "--samples", "3", "--csv", "answers.csv"
    ).out
    assert output.index("The film was") < output.index("P(positive)")
    rows = list(csv.DictReader((world / "answers.csv").open()))
    assert len(rows) == 2 * len(CONTESTANTS) * 3
    assert {row["model"] for row in rows} == set(CONTESTANTS)
    assert all(0 <= float(row["positive"]) <= 1 for row in rows)
    for model in CONTESTANTS:
        assert len({row["response"] for row in rows if row["model"] == model}) == 2 * 3, "all samples differ"
    assert len({row["response"] for row in rows}) > 2 * 3, "the models give different answers"


def test_compare_gives_the_answers_of_sample(world: World, run_stage: RunStage) -> None:
    """The command line gives a test prompt the same answers as `sample`."""
    sampled = [json.loads(line) for line in (world / "data/samples/rlhf.jsonl").read_text().splitlines()]
    one = sampled[14]
    assert one["sample"] == 0
    run_stage(world, "compare", "--prompt", one["prompt"], "--csv", "answers.csv")
    (row,) = [row for row in csv.DictReader((world / "answers.csv").open()) if row["model"] == "rlhf"]
    assert row["response"] == one["response"]


ONE = '{"text": "a", "label": 1, "split": "train"}'
UNASKED = '{"prompt": "a", "sample": 0, "response": "", "tokens": [], "finished": true}'


@pytest.mark.parametrize(
    ("stage", "spoil", "said"),
    [
        ("judge", lambda w: (w / "data/prepared/labelled.jsonl").unlink(), ["data/prepared/labelled.jsonl", "missing"]),
        ("judge", lambda w: (w / "data/prepared/labelled.jsonl").write_text(""), ["data/prepared/labelled.jsonl", "empty"]),
        (
            "judge",
            lambda w: (w / "data/prepared/labelled.jsonl").write_text(f'{ONE}\n{{"te'),
            ["data/prepared/labelled.jsonl, line 2", "not JSON"],
        ),
        (
            "sft",
            lambda w: (w / "data/prepared/sft.jsonl").write_text('{"prompt": "a"}\n'),
            ["data/prepared/sft.jsonl, line 1", "response", "prompt"],
        ),
        (
            "sft",
            lambda w: (w / "data/prepared/sft.jsonl").write_text('{"prompt": "a", "response": null}\n'),
            ["data/prepared/sft.jsonl, line 1", "response", "text", "None"],
        ),
        (
            "judge",
            lambda w: (w / "data/prepared/labelled.jsonl").write_bytes(b"\xff\xfe"),
            ["data/prepared/labelled.jsonl", "UTF-8"],
        ),
        ("evaluate", lambda w: (w / "plots/ppo.csv").write_text("a,b\n1,2\n"), ["plots/ppo.csv", "step", "score"]),
        ("sample@rlhf", lambda w: w.set("evaluate.prompts_file", "prompts/none.txt"), ["prompts/none.txt", "no such file"]),
        (
            "evaluate",
            lambda w: w.set("evaluate.judges", ["classifier", "models/pretrained/none"]),
            ["models/pretrained/none", "missing"],
        ),
        (
            "sample@rlhf",
            lambda w: (w / "prompts/one.txt").write_text("A") and w.set("evaluate.prompts_file", "prompts/one.txt"),
            ["prompts/one.txt", "1 of 1 prompts", "max_new_tokens", "two"],
        ),
        (
            "evaluate",
            lambda w: (w / "data/samples/sft.jsonl").write_text(UNASKED),
            ["data/samples/sft.jsonl, line 1", "tokens"],
        ),
        (
            "evaluate",
            lambda w: (w / "data/prepared/labelled.jsonl").write_text(ONE.replace("1", "7")),
            ["data/prepared/labelled.jsonl", "label", "0", "1"],
        ),
        ("evaluate", lambda w: (w / "reports/judge.json").write_text("{}"), ["reports/judge.json", "cut_words"]),
        ("hashes", lambda w: shutil.rmtree(w / "models/pretrained"), ["`git checkout models/pretrained`"]),
        ("evaluate", lambda w: w.set("evaluate.samples_per_prompt", 3), ["data/samples", "different prompts"]),
        ("evaluate", lambda w: (w / "reports/judge.json").write_text("[]"), ["reports/judge.json", "list", "object"]),
        (
            "evaluate",
            lambda w: (w / "data/samples/sft.jsonl").write_text(
                "".join(reversed((w / "data/samples/sft.jsonl").read_text().splitlines(keepends=True)))
            ),
            ["data/samples", "different prompts"],
        ),
        ("base", lambda w: w.set("base.model", "models/pretrained/none"), ["models/pretrained/none", "missing"]),
        (
            "ppo",
            lambda w: (w / "models/sft/model.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"{}"),
            ["models/sft", "weights", "lm_head.weight"],
        ),
        (
            "ppo",
            lambda w: shutil.copytree(w / "models/sft", w / "models/reward", dirs_exist_ok=True),
            ["models/reward", "weights", "score.weight"],
        ),
        ("ppo", lambda w: (w / "models/sft/model.safetensors").unlink(), ["models/sft", "model.safetensors", "missing"]),
        (
            "ppo",
            lambda w: (w / "models/sft/model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}"),
            ["models/sft/model.safetensors", "cannot be read"],
        ),
        ("compare", lambda w: shutil.rmtree(w / "models/ppo"), ["models/ppo", "missing"]),
        ("compare", lambda w: (w / "models/judge/judge.json").write_text("{"), ["models/judge", "cannot be loaded"]),
        ("judge", lambda w: (w / "params.yaml").write_text("judge: ["), ["params.yaml", "not YAML", "line 1"]),
        ("judge", lambda w: (w / "params.yaml").unlink(), ["params.yaml", "no such file"]),
        ("ppo", lambda w: w.set("device", "cuda:7"), ["device", "cuda:7"]),
        ("ppo", lambda w: w.set("ppo.max_new_tokens", 160), ["ppo.max_new_tokens"]),
    ],
)
def test_bad_input_is_one_clear_line(
    world: World, run_stage: RunStage, stage: str, spoil: Callable[[World], object], said: list[str]
) -> None:
    spoil(world)
    before = outs(world, "data", "models", "metrics", "plots")
    script, *more = stage.split("@")
    more += ["--prompt", "The film was"] if stage == "compare" else []
    ended = run_stage(world, script, *more, status=None)
    assert ended.status in (1, 2)
    assert_names(the_error(stage, ended.err), *said)
    assert outs(world, "data", "models", "metrics", "plots") == before, "nothing that existed before is lost"


@pytest.mark.parametrize(("stage", "key", "status"), [("ppo", "ppo.max_new_tokens", 1), ("judge", "judge.ngrams", 2)])
def test_bad_input_ends_the_process_with_one_line(world: World, stage: str, key: str, status: int) -> None:
    """A fault of an input and a fault of a setting run end to end. Other cases run in the process of the test."""
    world.set(key, 160)
    command = [sys.executable, f"stages/{stage}.py"]
    done = subprocess.run(command, cwd=world.folder, env=world.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert_names(the_error(stage, done.stderr), key)
