"""`make review`: the marks by hand-worked figures, the page, and the command in clones without cache and network."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from .conftest import ROOT, World

sys.path.insert(0, str(ROOT / "tools"))

import post_review
import review
from comparable import BASE_ANSWERS, MEASURES, apart, incomparable, other_judge
from review_changes import answers, reruns
from review_figures import (
    APART,
    BETTER,
    CHANGED,
    NOISE,
    SAME,
    WORSE,
    Seeds,
    bounds,
    direction,
    figure,
    figures,
    interval,
    seeds,
)
from review_page import MARKER, Clone, code, page_of, prose
from revisions import Side, at_commit, commit_of, in_workspace, not_run, side, used
from rlhf_sentiment.engine.errors import StageError

UNKNOWN = Seeds(0, "", {})


def made(**changes: Any) -> Side:
    return Side(**{"metrics": {}, "params": {}, "stages": {}, "pins": {}, "answers": {}, "dtypes": {}, "lock": ""} | changes)


def judged(value: float, kl: float = 1.0) -> Side:
    return made(metrics={"evaluation.rlhf.mean_positive": value, "evaluation.rlhf.kl_to_sft": kl})


def page(before: Side, after: Side, noise: Seeds = UNKNOWN, **clone: Any) -> str:
    return page_of(Clone("main", "Compared: two.", [], **({"stale": {}, "processors": []} | clone)), before, after, noise)


# Figures and marks


def test_seed_noise_is_the_repeatability_limit() -> None:
    """Five seeds: s is 0.0316228, and t with 4 degrees of freedom is 2.776445. Two seeds: 12.706205 and 0.1414214."""
    text = "seed,evaluation.rlhf.mean_positive,lock,commit\n" + "".join(f"{i},{0.90 + i / 50},ab,d34db33\n" for i in range(5))
    five = seeds(text)
    assert (five.runs, five.commit, list(five.locks)) == (5, "d34db33", ["ab"])
    assert five.noise == {"evaluation.rlhf.mean_positive": pytest.approx(2.776445 * 1.4142136 * 0.0316228, rel=1e-6)}
    assert seeds("seed,ppo.entropy\n1,0.5\n2,0.7\n").noise == {"ppo.entropy": pytest.approx(12.706205 * 0.2, rel=1e-6)}


@pytest.mark.parametrize(
    "text", ["", "seed,ppo.entropy\n", "seed,ppo.entropy\n1,0.5\n", "seed,ppo.entropy\n1,\n2,nan\n3,0.5,7\n4"]
)
def test_seed_noise_needs_two_figures(text: str) -> None:
    assert seeds(text).noise == {}


@pytest.mark.parametrize(
    ("name", "before", "after", "noise", "mark"),
    [
        ("evaluation.rlhf.mean_positive", 0.50, 0.75, 0.125, BETTER),
        ("evaluation.rlhf.mean_positive", 0.75, 0.50, 0.125, WORSE),
        ("evaluation.rlhf.mean_positive", 0.50, 0.625, 0.125, NOISE),
        ("evaluation.rlhf.mean_positive", 0.50, 0.75, None, CHANGED),
        ("evaluation.rlhf.mean_positive", 0.50, 0.50, None, SAME),
        ("evaluation.rlhf.kl_to_sft", 1.0, 2.0, 0.5, WORSE),
        ("evaluation.rlhf.perplexity", 4.0, 5.0, 0.5, CHANGED),
        ("evaluation.rlhf.perplexity", 4.0, 4.25, 0.5, NOISE),
        ("evaluation.base.mean_positive", 0.5, 0.9, 0.1, CHANGED),
        ("evaluation.sft.distinct_2", 0.5, 0.9, 0.1, CHANGED),
        ("evaluation.improvement.mean_positive", 0.4, 0.3, 0.05, WORSE),
        ("evaluation.improvement.p_value", 0.4, 0.3, None, CHANGED),
        ("reward.accuracy", 0.75, 0.8, 0.01, BETTER),
        ("sft.loss", 1.5, 1.25, 0.0, BETTER),
        ("ppo.validation_score", 1.0, 2.0, None, CHANGED),
        ("data.rows_kept", 10, 11, 0.0, CHANGED),
    ],
)
def test_marks(name: str, before: float, after: float, noise: float | None, mark: str) -> None:
    assert figure(name, before, after, noise).mark == mark


def test_figures_of_one_side_are_left_out() -> None:
    (one,) = figures({"a.x": 1.0, "a.old": 2.0}, {"a.new": 3.0, "a.x": 4.0}, {"a.x": 0.5})
    assert (one.name, one.before, one.after, one.noise) == ("a.x", 1.0, 4.0, 0.5)


def test_figures_that_were_measured_differently_have_their_own_mark() -> None:
    before, after = (
        {"reward.accuracy": 0.5, "sft.loss": 1.0, "ppo.steps": 3},
        {"reward.accuracy": 0.75, "sft.loss": 1.0, "ppo.steps": 4},
    )
    found = figures(before, after, {"reward.accuracy": 0.5}, {"reward.accuracy", "sft.loss"})
    assert [one.mark for one in found] == [APART, SAME, CHANGED]


def test_bounds_belong_to_their_figure() -> None:
    metrics = {
        "evaluation.improvement.ci_low": 0.4,
        "evaluation.improvement.ci_high": 0.5,
        "evaluation.improvement.positive_ratio_ci_low": 0.6,
        "evaluation.improvement.positive_ratio_ci_high": 0.7,
        "reward.accuracy_low": 0.8,
        "reward.accuracy_high": 0.9,
    }
    assert bounds("evaluation.improvement.mean_positive", metrics) == [0.4, 0.5]
    assert bounds("evaluation.improvement.positive_ratio", metrics) == [0.6, 0.7]
    assert bounds("reward.accuracy", metrics) == [0.8, 0.9]
    assert bounds("judge.accuracy", metrics) == []
    assert interval("evaluation.rlhf.mean_positive") is None


def test_the_figures_of_the_issue_have_a_direction() -> None:
    """The names are those of metrics/. A renamed metric would silently have no direction."""
    files = {f"metrics/{path.name}": path.read_text() for path in (ROOT / "metrics").glob("*.json")}
    names = {name for name in side(files, "here").metrics if direction(name)}
    assert names >= {
        "evaluation.rlhf.mean_positive",
        "evaluation.rlhf.kl_to_sft",
        "evaluation.rlhf.distinct_2",
        "reward.accuracy",
    }
    assert names >= {"evaluation.improvement.mean_positive", "sft.loss", "sft.token_accuracy", "ppo.validation_kl"}


# What differs


def test_files_are_read_as_dvc_reads_them() -> None:
    read = side(
        {
            "metrics/judge.json": '{"accuracy": 1, "cut": {"x": 0.5}, "words": "a, b", "flag": true, "bad": NaN}',
            "metrics/deeper/no.json": '{"x": 1}',
            "params.yaml": "ppo: {learning_rate: 1e-05, steps: 3}\nevaluate:\n  columns: {}\n  judges:\n  - lexicon\nseed:\n",
            "requirements.txt": "torch==2.13.0\n    # via trl\nyamllint==1.2\n",
        },
        "here",
    )
    assert read.metrics == {"judge.accuracy": 1, "judge.cut.x": 0.5}
    assert read.params["ppo.learning_rate"] == 0.00001
    assert read.params.keys() == {"ppo.learning_rate", "ppo.steps", "evaluate.columns", "evaluate.judges", "seed"}
    assert read.pins == {"torch": "2.13.0"}
    assert side({}, "here") == made()


@pytest.mark.parametrize("file", ["metrics/ppo.json", "params.yaml", "dvc.lock"])
@pytest.mark.parametrize("text", ["<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> main\n", "[1, 2]"])
def test_a_file_with_conflicts_gives_one_line(file: str, text: str) -> None:
    with pytest.raises(StageError, match=rf"^{file} of main "):
        side({file: text}, "main")


def test_an_empty_mapping_is_an_empty_setting() -> None:
    old, new = (side({"params.yaml": f"data:\n  columns:{value}\n"}, "here") for value in (" {}", ""))
    assert old == new == made(params={"data.columns": None})


PROMPTS, JUDGE, BASE = "data/prepared/prompts.jsonl", "models/judge", "models/base"


def measured(params: dict[str, Any], *other: str) -> Side:
    """Return a revision with a stage for each file. Those in `other` have other code, and so other bytes."""
    stages = {}
    for path in (PROMPTS, JUDGE, BASE, BASE_ANSWERS):
        digest = "other" if path in other else "first"
        files = {"deps": [{"path": "stages/x.py", "md5": digest}], "outs": [{"path": path, "md5": digest}]}
        stages[path] = {"cmd": "x", "params": {"params.yaml": params}, **files}
    return made(stages=stages, params=params)


def differing(before: Side, after: Side) -> dict[str, list[str]]:
    return {one.what: one.why for one in incomparable(before, after)}


def test_other_bytes_make_revisions_incomparable() -> None:
    old = measured({})
    assert differing(old, old) == {}
    assert differing(old, measured({}, PROMPTS, BASE_ANSWERS)) == {"prompts": [PROMPTS], "validation prompts": [PROMPTS]}
    assert differing(old, measured({}, PROMPTS)) == {"validation prompts": [PROMPTS]}, "the base model gave the same answers"
    assert differing(old, measured({}, JUDGE)) == {"judge": [JUDGE]}
    assert differing(old, measured({}, BASE, BASE_ANSWERS)) == {"base model": [BASE]}
    assert differing(old, made()) == {}, "a revision without dvc.lock says nothing about bytes"


def test_measures_name_files_settings_and_metrics_of_the_pipeline() -> None:
    """A renamed one would silently measure nothing."""
    now = side({path: (ROOT / path).read_text() for path in ("dvc.lock", "params.yaml")}, "here")
    metrics = side({f"metrics/{path.name}": path.read_text() for path in (ROOT / "metrics").glob("*.json")}, "here").metrics
    written = {out["path"] for entry in now.stages.values() for out in entry["outs"]}
    assert BASE_ANSWERS in written
    for one in MEASURES:
        assert written.issuperset(one.files), one.what
        assert not one.settings or [key for key in now.params if re.fullmatch(one.settings, key)], one.what
        assert [name for name in metrics if re.fullmatch(one.metrics, name)], one.what


def test_another_seed_or_machine_does_not_make_revisions_incomparable() -> None:
    for params in ({"seed": 1, "device": "cpu"}, {"seed": 2, "device": "cuda"}, {"seed": 2, "base": {"width": 64}}):
        new = measured(params)
        new.stages[BASE]["outs"] = [{"path": BASE, "md5": "other"}]
        expected = {"base model": [BASE, "base.width"]} if "base" in params else {}
        assert differing(measured({"seed": 1, "device": "cpu"}), new) == expected


def test_settings_that_measure_make_revisions_incomparable() -> None:
    """The bytes of the prompts, the judge and the pairs say whether settings such as data.seed changed them."""
    old = {
        "judge.cut_words": 14,
        "ppo.steps": 30,
        "data.hub.train": "train",
        "evaluate.confidence": 0.95,
        "generation.top_p": 1.0,
    }
    new = {
        "judge.cut_words": 9,
        "ppo.steps": 40,
        "data.hub.train": "other",
        "evaluate.confidence": 0.9,
        "generation.top_p": 0.9,
    }
    found = incomparable(made(params=old), made(params=new | {"evaluate.distinct_tokens": 5}))
    assert [(one.what, one.why) for one in found] == [
        ("sampling of the answers", ["generation.top_p"]),
        ("tokens for distinct_2", ["evaluate.distinct_tokens"]),
        ("level of the intervals", ["evaluate.confidence"]),
        ("length of cut texts", ["judge.cut_words"]),
    ]
    assert apart(found[1:], "evaluation.sft.distinct_2")
    assert apart(found[1:], "judge.accuracy_cut")
    assert not apart(found[1:], "judge.accuracy")
    assert not apart(found[1:], "evaluation.rlhf.mean_positive")
    assert apart(found, "evaluation.rlhf.mean_positive")


def test_settings_are_those_of_the_run() -> None:
    """`check` reads every setting before the others run. So its params may be newer than those of the figures."""
    ran, every = ({"params": {"params.yaml": {"ppo": {"steps": steps}}}} for steps in (30, 200))
    one = made(params={"ppo.steps": 200, "seed": 1}, stages={"ppo": ran, "check": every})
    assert used(one) == {"ppo.steps": 30, "seed": 1}
    assert not_run(one) == ["ppo.steps"]
    assert not_run(made(params={"ppo.steps": 200}, stages={"check": every | ran, "ppo": every})) == []


def test_seed_noise_is_of_seeds_that_were_measured_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"d34db33": measured({"seed": 1, "ppo.steps": 30, "generation.top_p": 1.0})}
    monkeypatch.setattr(review, "commit_of", lambda name: name if name in known else commit_of("no such commit"))
    monkeypatch.setattr(review, "at_commit", lambda name, _: known[name])
    noise = Seeds(5, "d34db33", {"a.x": 0.5}, frozenset({"l0ck"}))
    same = measured({"seed": 2, "ppo.steps": 30, "generation.top_p": 1.0})
    more = measured({"seed": 1, "ppo.steps": 40, "generation.top_p": 1.0})
    most = measured({"seed": 1, "ppo.steps": 40, "ppo.gamma": 1.0, "generation.top_p": 1.0})
    other = measured({"seed": 1, "ppo.steps": 30, "generation.top_p": 0.5}, BASE_ANSWERS)
    assert review.noise_of(noise, other, same) == noise
    assert review.noise_of(noise, other, more) == noise._replace(caveat="The seeds had other settings: `ppo.steps`.")
    assert review.noise_of(noise, most, more) == review.noise_of(noise, more, most) == review.noise_of(noise, other, more)
    apart_from_all = review.noise_of(noise, other, other)
    assert apart_from_all.noise == {}
    assert "was measured differently: `generation.top_p`" in apart_from_all.caveat
    before, after = (other._replace(metrics={"a.x": value}) for value in (1, 2))
    assert "was measured differently: `generation.top_p`. Seed noise is unknown" in page(before, after, apart_from_all)
    assert review.noise_of(noise, other, other._replace(lock="l0ck")) == noise
    unknown = review.noise_of(noise._replace(commit="d34db33-dirty"), same, same)
    assert (unknown.noise, "does not have its commit" in unknown.caveat) == ({}, True)


def locked(**stages: Any) -> Side:
    return made(stages=stages)


def stage(cmd: str = "python stages/ppo.py", out: str = "1", **changes: Any) -> dict[str, Any]:
    deps = [
        {"path": "stages/ppo.py", "md5": changes.get("code", "a")},
        {"path": "models/sft", "md5": changes.get("input", "b")},
    ]
    params = {"params.yaml": {"seed": 1, "ppo": {"steps": changes.get("steps", 30)}}}
    return {
        "cmd": cmd,
        "deps": deps,
        "params": params,
        "outs": [{"path": "models/judge", "md5": out}, {"path": "x", "md5": "2"}],
    }


@pytest.mark.parametrize(
    ("new", "causes", "outs"),
    [
        (stage(cmd="python x.py"), {"command": ["python x.py"]}, []),
        (stage(code="z", out="5"), {"code": ["stages/ppo.py"]}, ["models/judge"]),
        (stage(input="z", steps=40), {"params": ["ppo.steps"], "inputs": ["models/sft"]}, []),
        (stage(out="5"), {}, ["models/judge"]),
    ],
)
def test_stages_that_reran_say_why(new: dict[str, Any], causes: dict[str, list[str]], outs: list[str]) -> None:
    (one,) = reruns(locked(same=stage(), ppo=stage()), locked(same=stage(), ppo=new))
    assert (one.stage, one.causes, one.outs) == ("ppo", causes, outs)


def test_a_stage_whose_hashes_are_the_same_did_not_rerun() -> None:
    old, new = stage(), stage()
    new["deps"] = [dep | {"size": 5} for dep in reversed(new["deps"])]
    assert reruns(locked(ppo=old), locked(ppo=new)) == []


def test_stages_that_are_new_or_removed() -> None:
    found = reruns(locked(old=stage()), locked(new=stage()))
    assert [(one.stage, list(one.causes)) for one in found] == [("new", ["new stage"]), ("old", ["removed stage"])]


def test_another_judge_needs_both() -> None:
    assert other_judge(locked(judge=stage()), locked(judge=stage(out="5")))
    assert not other_judge(locked(judge=stage()), locked(judge=stage(input="z")))
    assert not other_judge(locked(), locked(judge=stage()))


def sampled(*rows: tuple[str, str, float | str]) -> Side:
    keys = ("prompt", "rlhf", "rlhf_positive")
    return made(answers={row[0]: dict(zip(keys, map(str, row), strict=True)) for row in rows})


def test_answers_are_those_of_the_fall_the_median_and_the_rise() -> None:
    before = sampled(
        ("a", "one", 0.5), ("b", "two", 0.5), ("c", "three", 0.5), ("d", "same", 0.5), ("gone", "x", 1), ("e", "y", 0.1)
    )
    after = sampled(("e", "z", "nan"), ("c", "3", 0.5), ("d", "same", 0.9), ("b", "2", 0.9), ("a", "1", 0.25), ("new", "x", 1))
    chosen, changed, shared = answers(before, after)
    assert [(one.kind, one.prompt, one.after) for one in chosen] == [
        ("largest fall", "a", "1"),
        ("median change", "c", "3"),
        ("largest rise", "b", "2"),
    ]
    assert (changed, shared) == (3, 5)
    assert answers(before, before) == ([], 0, 6)
    assert [one.kind for one in answers(before, sampled(("a", "1", 0.75)))[0]] == ["changed"]
    up = sampled(("a", "1", 0.504), ("b", "2", 0.6), ("c", "3", 0.7))
    assert [one.kind for one in answers(before, up)[0]] == ["smallest rise", "median change", "largest rise"]
    down = sampled(("a", "1", 0.1), ("b", "2", 0.4), ("c", "3", 0.496))
    assert [one.kind for one in answers(before, down)[0]] == ["largest fall", "median change", "smallest fall"]


# The page


@pytest.mark.parametrize(
    ("before", "after", "noise", "sentence"),
    [
        (
            judged(0.5),
            judged(0.75),
            UNKNOWN,
            "changed by +0.25; seed noise is unknown: mean P(positive) of the RLHF model went",
        ),
        (
            judged(0.5),
            judged(0.75, 2.5),
            Seeds(5, "", {"evaluation.rlhf.mean_positive": 0.125}),
            "at a KL of 2.5 nats per response",
        ),
        (
            judged(0.5),
            judged(0.75),
            Seeds(5, "", {"evaluation.rlhf.mean_positive": 0.125}),
            "improved by 0.25, which is beyond seed",
        ),
        (
            judged(0.75),
            judged(0.5),
            Seeds(5, "", {"evaluation.rlhf.mean_positive": 0.125}),
            "worsened by 0.25, which is beyond seed",
        ),
        (
            judged(0.5),
            judged(0.75),
            Seeds(5, "", {"evaluation.rlhf.mean_positive": 0.25}),
            "which is within seed noise (0.25): mean",
        ),
        (
            judged(0.5),
            judged(0.5, 2),
            UNKNOWN,
            "Judged sentiment is the same: mean P(positive) of the RLHF model is 0.5, at a KL of 2",
        ),
        (judged(0.5), judged(0.5), UNKNOWN, "Nothing that is measured differs from `main`"),
        (made(), judged(0.5), UNKNOWN, "`main` has no judged sentiment to compare with. Now mean P(positive)"),
        (judged(0.5), made(), UNKNOWN, "The workspace has no judged sentiment: run `make repro`"),
    ],
)
def test_the_verdict_comes_first(before: Side, after: Side, noise: Seeds, sentence: str) -> None:
    assert sentence in page(before, after, noise).split("\n")[3]


def test_the_verdict_begins_with_what_makes_it_void() -> None:
    before, after = judged(0.5)._replace(params={"evaluate.judged": "response"}), judged(0.75)
    line = page(before, after._replace(params={"evaluate.judged": "all"})).split("\n")[3]
    assert line.startswith("**Not comparable (other judge): mean P(positive) of the RLHF model went from 0.5 to 0.75")
    line = page(judged(0.5), after, stale={"ppo": ["ppo.steps"]}).split("\n")[3]
    assert line.startswith("**Stale, so run `make repro` first. Judged sentiment changed by +0.25; seed noise is unknown")


def test_the_page_marks_figures_and_params() -> None:
    noise = Seeds(5, "d34db33", {"evaluation.rlhf.mean_positive": 0.1, "evaluation.rlhf.kl_to_sft": 2.0})
    before = judged(0.5, 1.0)._replace(
        params={"ppo.steps": 30, "evaluate.distinct_tokens": 3, "ppo.dtype": "float32", "old": 1}
    )
    after = judged(0.75, 2.0)._replace(
        params={"ppo.steps": 40, "evaluate.distinct_tokens": 2, "ppo.dtype": "bfloat16", "new": None}
    )
    for one, value in ((before, 0.1), (after, 0.2)):
        one.metrics["evaluation.rlhf.distinct_2"] = value
    text = page(before, after, noise)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    assert ["`rlhf.mean_positive`", "0.5", "0.75", "+0.25", "0.1", "**better**"] in rows
    assert ["`rlhf.kl_to_sft`", "1", "2", "+1", "2", "within seed noise"] in rows
    assert ["`rlhf.distinct_2`", "0.1", "0.2", "+0.1", "unknown", "**not comparable**"] in rows
    assert ["`ppo.steps`", "`30`", "`40`", ""] in rows
    assert ["`evaluate.distinct_tokens`", "`3`", "`2`", "**not comparable**"] in rows
    assert "Of 3 metrics: 1 better, 1 not comparable, 1 within seed noise." in text
    assert "Only now: `new: empty`. Only in `main`: `old: 1`." in text
    assert "- `ppo.dtype`: float32 before, **bfloat16** now." in text
    assert "computed products" not in text
    auto = [one._replace(dtypes={"sft": "float32", "ppo": dtype}) for one, dtype in ((before, "float32"), (after, "bfloat16"))]
    line = "- `ppo` computed products in float32 before, and in **bfloat16** now."
    assert [one for one in page(auto[0], auto[1], noise).splitlines() if "computed products" in one] == [line]
    assert "(5 seeds, `docs/results/seeds.csv`, commit `d34db33`)" in text
    assert "- **Not comparable:** the tokens for distinct_2 changed (`evaluate.distinct_tokens`)." in text


def test_seventy_metrics_of_one_side_are_one_line() -> None:
    before = judged(0.5)
    before.metrics.update({f"evaluation.old.x{i}": i for i in range(70)})
    text = page(before, judged(0.75))
    assert text.count("evaluation.old.") == 8
    assert "and 62 more." in text


def test_the_page_names_the_machine_where_it_can() -> None:
    before, after = locked(ppo=stage()), locked(ppo=stage(out="5"))
    text = page(before, after._replace(pins={"torch": "3"}), processors=["Fast CPU"], stale={"ppo": ["stages/ppo.py"]})
    assert "- `ppo` had the same code, params and inputs, but **other libraries, threads or processor**." in text
    assert "- Processor: `Fast CPU` in the last runs in this clone." in text
    assert "- **Stale:** `ppo` (`stages/ppo.py`)." in text
    assert "torch" not in text, "a library that only one side pins does not differ"
    text = page(before._replace(pins={"torch": "2"}), after._replace(pins={"torch": "3"}))
    assert "- `torch`: 2 before, 3 now." in text


def test_texts_cannot_break_the_page() -> None:
    bad = "@all see #1 | <script>alert(1)</script>\n# Title **bold** `code` [link](http://x) {plot_divs}\x1b[31m"
    assert prose(bad).startswith("@\u2060all see \\#\u20601 \\| \\<script\\>alert(1)\\</script\\> \\#\u2060 Title \\*\\*bold")
    assert "\x1b" not in prose(bad)
    assert len(prose("word " * 1000)) < 300
    assert code("a`b|c\nd") == "`a'b\\|c d`"
    text = page(sampled((bad, bad, 0.1)), sampled((bad, bad + "!", 0.9)))
    assert "<script>" not in text
    assert len(text.splitlines()) == len(page(sampled(("a", "b", 0.1)), sampled(("a", "c", 0.9))).splitlines())


# The command


def git(folder: Path, *arguments: str) -> None:
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with two commits: one without metrics, and one with them."""
    folder = tmp_path / "repository"
    (folder / "metrics").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "params.yaml").write_text("seed: 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a | first")
    (folder / "metrics/evaluation.json").write_text('{"rlhf": {"mean_positive": 0.5}}')
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a second")
    return folder


def test_a_base_is_read_from_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    assert at_commit(commit_of("main"), "main").metrics == {"evaluation.rlhf.mean_positive": 0.5}
    assert at_commit(commit_of("main^"), "main^") == made(params={"seed": 1})
    Path("metrics/evaluation.json").write_text('{"rlhf": {"mean_positive": 0.75}}')
    assert in_workspace().metrics == {"evaluation.rlhf.mean_positive": 0.75}


def test_a_clone_finds_the_branches_of_origin(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(repository, "branch", "other", "main^")
    git(tmp_path, "clone", "-q", str(repository), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    assert commit_of("other") == commit_of("main^")


def test_an_experiment_is_a_revision(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    git(repository, "update-ref", "refs/exps/ab/cdef/long-run", "main^")
    assert commit_of("long-run") == commit_of("main^")


def test_tables_with_other_columns_are_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    Path("plots").mkdir()
    for name in ("same", "other"):
        Path(f"plots/{name}.csv").write_text("a,b\n1,2\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "tables")
    Path("plots/same.csv").write_text("a,b\n3,4\n")
    Path("plots/other.csv").write_text("a,c\n1,2\n")
    Path("plots/new.csv").write_text("a\n1\n")
    (line,) = review._other_tables("main", "HEAD")
    assert line.endswith(": `plots/other.csv`.")


def test_a_base_that_is_not_there_gives_one_line(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    with pytest.raises(StageError, match=r"^there is no revision 'nosuch'; name a branch, a tag, a commit or an experiment$"):
        commit_of("nosuch")
    with pytest.raises(StageError, match=r"^there is no revision '--all'"):
        commit_of("--all")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    with pytest.raises(StageError, match=r"^this clone is shallow and lacks 'main\^'; run `git fetch --unshallow`"):
        commit_of("main^")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path / "none")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(StageError, match="not in a git repository"):
        commit_of("main")


@pytest.mark.slow
def test_a_review_of_two_runs_in_a_clone_without_cache_and_network(world: World, tmp_path: Path) -> None:
    world.set("ppo.learning_rate", 0.01)
    ran = world.stages_run(world.run("dvc", "repro"))
    assert "ppo" in ran
    world.commit("a higher learning rate")
    world.run("git", "clone", "-q", str(world.folder), str(tmp_path / "clone"))
    clone = World(tmp_path / "clone", {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"})
    offline = (
        ("unshare", "-rn") if shutil.which("unshare") and not subprocess.run(["unshare", "-rn", "true"]).returncode else ()
    )
    said = clone.run(*offline, "python", "tools/review.py", "HEAD^")

    text = (clone / "review/review.md").read_text()
    old, new = (json.loads(world.run("git", "show", f"{rev}:metrics/evaluation.json"))["rlhf"] for rev in ("HEAD^", "HEAD"))
    assert said.startswith("Judged sentiment ")
    assert f"went from {old['mean_positive']:.6g} to {new['mean_positive']:.6g}" in text
    assert "| `ppo.learning_rate` | `0.0003`  | `0.01` |" in text
    rows = text.partition("## Stages that reran")[2].partition("##")[0].splitlines()
    assert [line.split("`")[1] for line in rows if line.startswith("| `")] == ["check", *ran] if "check" not in ran else ran
    assert "Stale" not in text
    assert "Uncommitted" not in text

    html = (clone / "review/index.html").read_text()
    assert "<h1>Review against <code>HEAD^</code></h1>" in html
    assert 'src="http' not in html
    assert len(list((clone / "review/static").glob("*.png"))) == 2 * len(list((clone / "plots").glob("*.png")))

    clone.set("ppo.steps", 3)
    clone.run("python", "tools/review.py", "HEAD")
    text = (clone / "review/review.md").read_text()
    assert "Uncommitted changes count, too: `params.yaml`." in text
    assert "- **Stale:** `check` (" in text
    assert clone.run("python", "tools/review.py", "nosuch", status=1).count("\n") == 1


def test_the_job_for_gitlab_is_valid(tmp_path: Path) -> None:
    (job,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/reviews.md").read_text(), re.DOTALL)
    (tmp_path / "job.yml").write_text(job)
    checker = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([checker, "--builtin-schema", "vendor.gitlab-ci", tmp_path / "job.yml"], check=True)
    targets = re.findall(r"- make ([a-z-]+)", job)
    assert targets == ["review", "post-review"]
    assert [target for target in targets if f"\n{target}: setup" not in (ROOT / "Makefile").read_text()] == []


# The comment


class Comments(BaseHTTPRequestHandler):
    """The comments of a pull request. The first page is full, so that a client has to turn it."""

    asked: list[tuple[str, str]]
    status: int
    found: list[dict[str, Any]]

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.asked.append((f"{self.command} {self.path}", json.loads(self.rfile.read(length))["body"] if length else ""))
        page = self.path.rpartition("page=")[2]
        listed = [{"id": 1, "body": "a remark"}] * 100 if page == "1" else self.found if page == "2" else []
        body = json.dumps(listed if self.command == "GET" else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815 (names of http.server)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def comments() -> Iterator[tuple[type[Comments], str]]:
    handler = type("Handler", (Comments,), {"asked": [], "status": 200, "found": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def github(address: str, folder: Path) -> dict[str, str]:
    event = folder / "event.json"
    event.write_text('{"pull_request": {"number": 7}}')
    return {"GITHUB_TOKEN": "t", "GITHUB_API_URL": address, "GITHUB_REPOSITORY": "a/b", "GITHUB_EVENT_PATH": str(event)}


GITLAB = {"REVIEW_TOKEN": "t", "CI_PROJECT_ID": "5", "CI_MERGE_REQUEST_IID": "7"}


def test_one_comment_is_added_and_then_replaced(comments: tuple[type[Comments], str], tmp_path: Path) -> None:
    handler, address = comments
    where = post_review.service(github(address, tmp_path))
    assert where
    handler.found = [{"id": 8, "body": f"{MARKER}\nquoted", "user": {"type": "User"}}]
    assert post_review.post(where, "page") == "added a comment"
    assert handler.asked[-1] == ("POST /repos/a/b/issues/7/comments", "page")
    handler.found = [{"id": 9, "body": f"{MARKER}\nold", "user": {"type": "Bot"}}]
    assert post_review.post(where, "page " * 20_000).startswith("replaced")
    assert handler.asked[-1][0] == "PATCH /repos/a/b/issues/comments/9"
    assert len(handler.asked[-1][1]) < 65_536


def test_gitlab_has_the_same_comment(comments: tuple[type[Comments], str]) -> None:
    handler, address = comments
    where = post_review.service(GITLAB | {"CI_API_V4_URL": address})
    assert where
    handler.found = [{"id": 9, "body": f"{MARKER}\nold"}]
    post_review.post(where, "page")
    assert [asked for asked, _ in handler.asked] == [
        "GET /projects/5/merge_requests/7/notes?per_page=100&page=1",
        "GET /projects/5/merge_requests/7/notes?per_page=100&page=2",
        "PUT /projects/5/merge_requests/7/notes/9",
    ]


def test_a_token_that_may_not_comment_is_no_error(comments: tuple[type[Comments], str], tmp_path: Path) -> None:
    handler, address = comments
    where = post_review.service(github(address, tmp_path))
    assert where
    handler.status = 403
    assert post_review.post(where, "page") == "no comment, as the token may not comment (HTTP 403)"
    handler.status = 502
    with pytest.raises(StageError, match=r"/issues/7/comments: HTTP 502"):
        post_review.post(where, "page")
    with pytest.raises(StageError, match="refused"):
        post_review.post(where._replace(comments="http://127.0.0.1:9"), "page")


def test_outside_a_pull_request_there_is_no_comment(tmp_path: Path) -> None:
    variables = github("http://127.0.0.1:9", tmp_path)
    (tmp_path / "event.json").write_text('{"ref": "refs/heads/main"}')
    assert post_review.service(variables) is None
    assert post_review.service({"REVIEW_TOKEN": "t"}) is None
    assert post_review.service({}) is None


def test_the_summary_of_the_job_has_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_TOKEN", "REVIEW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    with pytest.raises(SystemExit):
        post_review.main()
    assert capsys.readouterr().err == "post-review: review/review.md is missing; run `make review BASE=main` first\n"
    Path("review").mkdir()
    Path("review/review.md").write_text("the page\n")
    post_review.main()
    assert Path("summary").read_text() == "the page\n"
    assert "no comment" in capsys.readouterr().out
