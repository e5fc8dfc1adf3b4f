"""Evaluate: did it work, how sure are we, and what did it cost?

The judge, which nothing was trained against, says how positive each response is; differences are taken prompt by
prompt, with intervals and tests. Beside it stand a lexicon's opinion, the reward model's own, and any other judge that
`evaluate.judges` names; each sits an exam on texts it has not seen. What positivity cost is likeness to the base model,
variety, repetition and KL from the fine-tuned model; where a guard is crossed, a line warns. On the synthetic source the
grammar that wrote the corpus is an oracle: does a response parse, and which polarity has it?
"""

from rlhf_sentiment.engine.start import stage  # isort: split

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.markdown import Markdown
from scipy.stats import binomtest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_sentiment.data import grammar
from rlhf_sentiment.data.text import cut_words, place_of
from rlhf_sentiment.engine.artifacts import writing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import warn
from rlhf_sentiment.engine.params import Device, Seed, Settings
from rlhf_sentiment.engine.progress import progress_bar
from rlhf_sentiment.engine.records import Row, read_json, read_rows, read_table, write_metrics, write_table
from rlhf_sentiment.evaluation import figures
from rlhf_sentiment.evaluation.classifier import examine_both, reliability
from rlhf_sentiment.evaluation.contestants import MODELS
from rlhf_sentiment.evaluation.costs import costs, crossed
from rlhf_sentiment.evaluation.judges import Opinion, agreement, judged, opinion_of, platt, text_scores
from rlhf_sentiment.evaluation.report import markdown
from rlhf_sentiment.evaluation.statistics import holm, improvement, interval
from rlhf_sentiment.models.devices import make_deterministic, quiet, resolve_device
from rlhf_sentiment.models.forward import reward_scores
from rlhf_sentiment.models.loading import load_policy, load_reward_model, load_tokenizer
from rlhf_sentiment.models.tokens import encode
from rlhf_sentiment.sampling.rollout import Responses, batch_of, exact_kl, score_tokens
from rlhf_sentiment.settings.evaluate import EvaluateSettings, short_name

PAIRS = {"improvement": ("rlhf", "base"), "improvement_over_sft": ("rlhf", "sft"), "sft_over_base": ("sft", "base")}
CURVES = {
    "sft": ("step", "loss"),
    "reward": ("step", "loss", "accuracy"),
    "ppo": ("step", "score", "kl_penalty", "kl_k3", "entropy"),
    "ppo_validation": ("step", "score", "kl"),
}
READS = [
    *(f"data/samples/{name}.jsonl" for name in (*MODELS, "base_rollout", "rlhf_rollout")),
    "data/prepared/labelled.jsonl",
    "data/prepared/preferences.jsonl",
    "models/pretrained",
    "models/base",
    "models/sft",
    "models/ppo",
    "models/reward",
    "models/judge",
    "metrics/data.json",
    "metrics/judge.json",
    "metrics/ppo.json",
    *(f"plots/{name}.csv" for name in CURVES),
]
WRITES = [
    "metrics/evaluation.json",
    "plots/comparison.csv",
    "plots/distribution.csv",
    "plots/reliability.csv",
    "plots/frontier.csv",
    "plots/samples.csv",
    "plots/training.png",
    "plots/ppo.png",
    "plots/comparison.png",
    "plots/distribution.png",
    "plots/reliability.png",
    "plots/frontier.png",
    "reports/report.md",
]


class Params(Settings):
    seed: Seed
    device: Device
    evaluate: EvaluateSettings


def main(params: Params) -> str:
    quiet()
    make_deterministic(params.seed)
    settings, device = params.evaluate, resolve_device(params.device)
    certainty: dict[str, Any] = {"confidence": settings.confidence, "resamples": settings.resamples, "seed": params.seed}
    samples = {name: read_samples(name) for name in MODELS}
    rollouts = {name: read_samples(f"{name}_rollout") for name in ("base", "rlhf")}
    prompts = paired(samples, rollouts, settings.samples_per_prompt)
    temperature = read_json("metrics/ppo.json", {"temperature": float})["temperature"]
    cut = read_json("metrics/judge.json", {"cut_words": int})["cut_words"]
    curves = {name: read_table(f"plots/{name}.csv", columns) for name, columns in CURVES.items()}
    source = read_json("metrics/data.json", {"source": str, "preferred_for": str})
    synthetic = source["source"] == "synthetic"
    base, tokenizer = load_policy("models/base", device), load_tokenizer("models/base")
    reward = load_reward_model("models/reward", device)

    # 1. The judges sit an exam, on labelled texts whole and cut to a response's length. The reward model's scores become
    #    probabilities on texts of neither the exam nor its own training.
    texts, labels = exam(settings.exam_texts)
    cut_texts = [cut_words(text, cut) for text in texts["test"]]
    opinions = {short_name(name): opinion_of(name, device) for name in settings.judges if name != "reward"}
    said = {name: {"whole": opinion(texts["test"]), "cut": opinion(cut_texts)} for name, opinion in opinions.items()}
    if "reward" in settings.judges:
        ended = bool(np.mean([row["finished"] for row in samples["sft"]]) > 0.5)  # its texts end as responses do
        scale = platt(text_scores(reward, tokenizer, texts["train"], ended), labels["train"])
        said["reward"] = {
            "whole": scale(text_scores(reward, tokenizer, texts["test"], ended)),
            "cut": scale(text_scores(reward, tokenizer, cut_texts, ended)),
        }

    # 2. What each judge thinks of each response, and what each model's text costs.
    tokens = min(sum(len(row["tokens"]) for row in rows) for rows in samples.values())
    positive: dict[str, dict[str, np.ndarray]] = {}  # model -> judge -> (prompts x samples,)
    scores: dict[str, np.ndarray] = {}
    result: Row = {"prompts": len(prompts)}
    for name, rows in progress_bar(samples.items(), desc="evaluate", unit=" models", leave=False):
        read = [judged(row["prompt"], row["response"], settings.judged) for row in rows]
        positive[name] = {judge: opinion(read) for judge, opinion in opinions.items()}
        scores[name], perplexity = score(base, reward, tokenizer, rows)
        if "reward" in settings.judges:
            positive[name]["reward"] = scale(scores[name])
        result[name] = opinions_of(positive[name]) | {"reward": scores[name].mean(), "perplexity": perplexity}
        result[name] |= costs(rows, settings.samples_per_prompt, tokens) | (oracle(rows) if synthetic else {})

    # 3. KL from the fine-tuned model, on untruncated samples at the rollouts' temperature.
    sft = load_policy("models/sft", device)
    result["sft"]["kl_to_sft"] = 0.0
    for name in ("base", "rlhf"):
        other = load_policy(MODELS[name], device)
        nats = [exact_kl(other, sft, part, temperature).cpu() for part in batches(rollouts[name], tokenizer, device)]
        result[name]["kl_to_sft"] = np.mean(np.concatenate(nats))
    warnings = crossed({name: result[name] for name in MODELS}, settings.guards)
    for name in MODELS:
        result[name]["guards_crossed"] = sum(line.startswith(f"{name}: ") for line in warnings)

    # 4. Differences, prompt by prompt; whether the reward model's opinion grew more than the judge's; who agrees with whom.
    judge = {name: opinion["classifier"].reshape(len(prompts), -1) for name, opinion in positive.items()}
    for key, (after, before) in PAIRS.items():
        result[key] = improvement(judge[after], judge[before], **certainty)
    for key, p in zip(PAIRS, holm([result[key]["p_value"] for key in PAIRS]), strict=True):
        result[key]["p_holm"] = p
    result["reward_hacking_gap"] = gain(scores["rlhf"], scores["sft"]) - gain(judge["rlhf"], judge["sft"])
    result["judges"] = {name: examine_both(ways["whole"], ways["cut"], labels["test"]) for name, ways in said.items()}
    result["kappa"] = agreement({name: np.concatenate([positive[model][name] for model in MODELS]) for name in said})
    result["annotators"] = sided(opinions["classifier"], settings.confidence)
    write_metrics("metrics/evaluation.json", plain(result))

    # 5. Tables and pictures.
    bars = []
    for figure, values in (
        ("mean P(positive)", judge),
        ("positive ratio", {name: (opinion > 0.5) * 1.0 for name, opinion in judge.items()}),
    ):
        for name in MODELS:
            each = values[name].mean(axis=1)
            low, high = interval(each, **certainty)
            bar = {"value": each.mean(), "low": low, "high": high, "kl": result[name]["kl_to_sft"]}
            bars.append({"bar": f"{figure}, {name}", "model": name, "figure": figure, **bar})
    comparison = pd.DataFrame(bars)
    frontier = comparison[comparison["figure"] == "mean P(positive)"][["model", "kl", "value", "low", "high"]]
    bins = np.linspace(0, 1, 21)
    shares = {name: np.histogram(values, bins)[0] / values.size for name, values in judge.items()}
    calibration = {(name, way): reliability(p, labels["test"]) for name, ways in said.items() for way, p in ways.items()}
    middles = {"P(positive)": calibration["classifier", "whole"]["middle"]}
    calibration = {key: table.where(table["texts"] >= 5) for key, table in calibration.items()}  # fewer show only noise
    first = {name: rows[:: settings.samples_per_prompt] for name, rows in samples.items()}
    listed = [
        {"prompt": prompts[i]}
        | {name: first[name][i]["response"] for name in MODELS}
        | {f"{name}_positive": judge[name][i, 0] for name in MODELS}
        for i in range(min(settings.listed_prompts, len(prompts)))
    ]
    write_table("plots/comparison.csv", comparison.drop(columns="kl"))
    write_table("plots/frontier.csv", frontier)
    write_table("plots/distribution.csv", pd.DataFrame({"P(positive)": bins[:-1], **shares}))
    write_table(
        "plots/reliability.csv",
        pd.DataFrame(middles | {f"{name}_{way}": table["was"] for (name, way), table in calibration.items()}),
    )
    write_table("plots/samples.csv", listed, digits=4)
    figures.comparison("plots/comparison.png", comparison, settings.confidence)
    figures.distribution("plots/distribution.png", {name: values.ravel() for name, values in judge.items()}, bins)
    figures.reliability("plots/reliability.png", calibration, cut)
    figures.frontier("plots/frontier.png", frontier, curves["ppo"], curves["ppo_validation"], settings.confidence)
    figures.training("plots/training.png", curves["sft"], curves["reward"])
    figures.ppo("plots/ppo.png", curves["ppo"], curves["ppo_validation"])

    # 6. The report, in a file and on the terminal.
    report = markdown(plain(result), warnings, listed[: settings.shown_samples], settings.confidence, source["preferred_for"])
    with writing("reports/report.md") as aside:
        aside.write_text(report, encoding="utf-8", newline="\n")
    Console().print(Markdown(report))
    for line in warnings:
        warn("evaluate", line)
    over = result["improvement_over_sft"]
    return f"RLHF - SFT = {over['mean_positive']:+.3f} [{over['ci_low']:+.3f}, {over['ci_high']:+.3f}] in mean P(positive)"


def read_samples(name: str) -> list[Row]:
    """The answers of a model."""
    columns = {"prompt": str, "sample": int, "response": str, "tokens": list, "finished": bool}
    rows = read_rows(f"data/samples/{name}.jsonl", columns)
    for number, row in enumerate(rows, start=1):
        if not row["tokens"]:
            raise StageError(f"data/samples/{name}.jsonl, line {number}: no tokens; a response has at least its EOS")
    return rows


def paired(samples: dict[str, list[Row]], rollouts: dict[str, list[Row]], each: int) -> list[str]:
    """The prompts, every one of which every model has answered `each` times, in one order.

    Raises:
        StageError: they have not.
    """
    prompts = [row["prompt"] for row in samples["base"][::each]]
    wanted = [(prompt, sample) for prompt in prompts for sample in range(each)]
    if any([(row["prompt"], row["sample"]) for row in rows] != wanted for rows in samples.values()) or any(
        [row["prompt"] for row in rows] != prompts for rows in rollouts.values()
    ):
        raise StageError("data/samples: the models answered different prompts, so nothing is paired; run `dvc repro`")
    return prompts


def exam(count: int) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Labelled texts that no judge has seen (test), and those that set the reward model's scale (train), `count` of each."""
    rows = read_rows("data/prepared/labelled.jsonl", {"text": str, "label": int, "split": str})
    if any(row["label"] not in (0, 1) for row in rows):
        raise StageError("data/prepared/labelled.jsonl: a label is neither 0 nor 1; run `dvc repro`")
    drawn = sorted(rows, key=lambda row: place_of(row["text"], "exam"))  # adding rows changes few of them
    parts = {split: [row for row in drawn if row["split"] == split][:count] for split in ("train", "test")}
    for split, part in parts.items():
        if {row["label"] for row in part} != {0, 1}:
            raise StageError(
                f"data/prepared/labelled.jsonl: the {len(part)} texts of {split} that are drawn are not of both labels; "
                "raise evaluate.exam_texts, or bring more texts"
            )
    texts = {split: [row["text"] for row in part] for split, part in parts.items()}
    return texts, {split: np.array([row["label"] for row in part]) for split, part in parts.items()}


def sided(opinion: Opinion, confidence: float) -> Row:
    """In how many of the held-out preference pairs the judge finds the chosen response the more positive, with an interval.

    About half, and what was chosen is not what the judge looks for; pairs that it cannot tell apart do not count.
    """
    columns: dict[str, type] = {"chosen": str, "rejected": str, "split": str}
    rows = [row for row in read_rows("data/prepared/preferences.jsonl", columns) if row["split"] == "validation"]
    chosen, rejected = (opinion([row[side] for row in rows]) for side in ("chosen", "rejected"))
    told_apart, agreed = int((chosen != rejected).sum()), int((chosen > rejected).sum())
    if not told_apart:
        return {"pairs": 0, "agree": 0.5, "agree_ci_low": 0.0, "agree_ci_high": 1.0}
    share = binomtest(agreed, told_apart).proportion_ci(confidence, method="wilson")
    return {"pairs": told_apart, "agree": agreed / told_apart, "agree_ci_low": share.low, "agree_ci_high": share.high}


def opinions_of(positive: dict[str, np.ndarray]) -> Row:
    """What the judges say of a model's responses: the classifier in full, of the others the positive ratio."""
    classifier = positive["classifier"]
    others = {f"{name}_positive": (opinion > 0.5).mean() for name, opinion in positive.items() if name != "classifier"}
    return {
        "mean_positive": classifier.mean(),
        "std_positive": classifier.std(ddof=1),
        "positive_ratio": (classifier > 0.5).mean(),
        **others,
    }


def oracle(rows: list[Row]) -> Row:
    """What the grammar that wrote the corpus says of the responses."""
    polarities = [grammar.polarity_of(row["prompt"] + row["response"]) for row in rows]
    parsed = [polarity for polarity in polarities if polarity is not None]
    positive = parsed.count(grammar.POSITIVE) / max(len(parsed), 1)
    return {"grammar_parses": len(parsed) / len(rows), "grammar_positive": positive}


def gain(after: np.ndarray, before: np.ndarray) -> float:
    """How far the mean rose, in standard deviations of what it was before (0 where that had none)."""
    spread = before.std(ddof=1)
    return float((after.mean() - before.mean()) / spread) if spread > 0 else 0.0


def batches(rows: list[Row], tokenizer: PreTrainedTokenizerBase, device: torch.device, size: int = 64) -> Iterator[Responses]:
    """The answers as tensors, `size` at a time, in their order."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        prompts = [encode(tokenizer, row["prompt"]) for row in part]
        yield batch_of(prompts, [row["tokens"] for row in part], tokenizer.pad_token_id, device)


@torch.no_grad()
def score(
    base: PreTrainedModel, reward: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> tuple[np.ndarray, float]:
    """The reward model's scores (N,), and the perplexity of the responses under the base model, token by token."""
    scores, nats, tokens = [], 0.0, 0
    for batch in batches(rows, tokenizer, base.device):
        scores.append(reward_scores(reward, batch.sequences, batch.attention_mask).cpu().numpy())
        likelihood = score_tokens(base, batch, 1.0).log_probs
        nats -= float(likelihood[batch.response_mask.bool()].double().sum())
        tokens += int(batch.response_mask.sum())
    return np.concatenate(scores), float(np.exp(nats / tokens))


def plain(tree: Any) -> Any:
    """`tree` with numpy's numbers as Python's."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree.item() if isinstance(tree, np.generic) else tree


if __name__ == "__main__":
    stage("evaluate", __doc__, Params, main, READS, WRITES, lower="evaluate.exam_texts, or evaluate.num_samples")
