"""Evaluate: did it work, how sure are we, and what did it cost?

The judge, which nothing was trained against, says how positive each response is; differences are taken prompt by
prompt, with intervals. Beside it stand a lexicon's opinion, the reward model's own, and what positivity cost: likeness to
the base model, variety, repeated responses, and KL from the fine-tuned model. On the synthetic source the grammar that wrote
the corpus is an oracle: does a response parse, and which polarity has it?
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.markdown import Markdown
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rlhf_sentiment import grammar, plots
from rlhf_sentiment.config import Device, Seed, Settings
from rlhf_sentiment.evaluation import distinct, duplicated, improvement, interval
from rlhf_sentiment.judge import Judge
from rlhf_sentiment.models import (
    encode,
    load_policy,
    load_reward_model,
    load_tokenizer,
    make_deterministic,
    quiet,
    resolve_device,
    reward_scores,
)
from rlhf_sentiment.records import Row, read_json, read_rows, read_table, write_metrics, write_table
from rlhf_sentiment.report import markdown
from rlhf_sentiment.rollout import batch_of, exact_kl, score_tokens
from rlhf_sentiment.run import StageError, stage, writing
from rlhf_sentiment.settings.evaluate import EvaluateSettings

MODELS = ("base", "sft", "rlhf")
CURVES = {
    "sft": ("step", "loss"),
    "reward": ("step", "loss", "accuracy"),
    "ppo": ("step", "score", "kl_penalty", "kl_k3", "entropy"),
    "ppo_validation": ("step", "score"),
}
READS = [
    *(f"data/samples/{name}.jsonl" for name in (*MODELS, "rlhf_rollout")),
    "models/base",
    "models/sft",
    "models/ppo",
    "models/reward",
    "models/judge",
    "metrics/data.json",
    "metrics/ppo.json",
    *(f"plots/{name}.csv" for name in CURVES),
]
WRITES = [
    "metrics/evaluation.json",
    "plots/comparison.csv",
    "plots/distribution.csv",
    "plots/samples.csv",
    "plots/training.png",
    "plots/ppo.png",
    "plots/comparison.png",
    "plots/distribution.png",
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
    samples = {name: read_samples(name, settings.num_samples) for name in (*MODELS, "rlhf_rollout")}
    if any([row["prompt"] for row in rows] != [row["prompt"] for row in samples["base"]] for rows in samples.values()):
        raise StageError("data/samples: the models answered different prompts, so nothing is paired; run `dvc repro`")
    rollouts = samples.pop("rlhf_rollout")
    temperature = read_json("metrics/ppo.json", {"temperature": float})["temperature"]
    curves = {name: read_table(f"plots/{name}.csv", columns) for name, columns in CURVES.items()}
    synthetic = read_json("metrics/data.json", {"source": str})["source"] == "synthetic"

    # 1. What each judge thinks of each response, and how each model's text differs from the base model's.
    judge, vader, tokenizer = Judge.load("models/judge"), SentimentIntensityAnalyzer(), load_tokenizer("models/base")
    base, reward = load_policy("models/base", device), load_reward_model("models/reward", device)
    equal_tokens = min(sum(len(row["tokens"]) for row in rows) for rows in samples.values())
    positive: dict[str, np.ndarray] = {}
    result: Row = {}
    for name, rows in tqdm(samples.items(), desc="evaluate", unit=" models", leave=False, disable=None):
        texts = [row["response"] if settings.judged == "response" else row["prompt"] + row["response"] for row in rows]
        positive[name] = judge.positive(texts)
        scores, negative_log_likelihood, tokens = score(base, reward, tokenizer, rows)
        result[name] = {
            "mean_positive": positive[name].mean(),
            "std_positive": positive[name].std(ddof=1),
            "positive_ratio": (positive[name] > 0.5).mean(),
            "lexicon_positive": np.mean([vader.polarity_scores(text)["compound"] > 0 for text in texts]),
            "reward": scores.mean(),
            "perplexity": np.exp(negative_log_likelihood / tokens),
            "distinct_2": distinct([row["tokens"] for row in rows], 2, equal_tokens),
            "duplicated": duplicated([row["response"] for row in rows]),
            "response_tokens": np.mean([len(row["tokens"]) for row in rows]),
            "finished": np.mean([row["finished"] for row in rows]),
            "samples": len(rows),
        }
        if synthetic:
            polarities = [grammar.polarity_of(row["prompt"] + row["response"]) for row in rows]
            parsed = [polarity for polarity in polarities if polarity is not None]
            result[name]["grammar_parses"] = len(parsed) / len(rows)
            result[name]["grammar_positive"] = parsed.count(grammar.POSITIVE) / max(len(parsed), 1)

    # 2. KL of the RLHF model from the fine-tuned one, on untruncated samples at the rollouts' temperature.
    rlhf, sft = load_policy("models/ppo", device), load_policy("models/sft", device)
    result["rlhf"]["kl_to_sft"] = np.mean(
        np.concatenate([exact_kl(rlhf, sft, part, temperature).cpu() for part in batches(rollouts, tokenizer, device)])
    )

    # 3. Differences, prompt by prompt.
    result["improvement"] = improvement(positive["rlhf"], positive["base"], **certainty)
    result["improvement_over_sft"] = improvement(positive["rlhf"], positive["sft"], **certainty)
    write_metrics("metrics/evaluation.json", plain(result))

    # 4. Tables and pictures.
    bars = []
    for figure, values in (
        ("mean P(positive)", positive),
        ("positive ratio", {m: (p > 0.5) * 1.0 for m, p in positive.items()}),
    ):
        for name in MODELS:
            low, high = interval(values[name], **certainty)
            bar = {"value": values[name].mean(), "low": low, "high": high}
            bars.append({"bar": f"{figure}, {name}", "model": name, "figure": figure, **bar})
    bins = np.linspace(0, 1, 21)
    shares = {name: np.histogram(values, bins)[0] / len(values) for name, values in positive.items()}
    spread = pd.DataFrame({"P(positive)": bins[:-1], **shares})
    listed = [
        {"prompt": samples["base"][i]["prompt"]}
        | {name: samples[name][i]["response"] for name in MODELS}
        | {f"{name}_positive": positive[name][i] for name in MODELS}
        for i in range(min(settings.listed_prompts, settings.num_samples))
    ]
    write_table("plots/comparison.csv", bars)
    write_table("plots/distribution.csv", spread)
    write_table("plots/samples.csv", listed, digits=4)
    plots.comparison("plots/comparison.png", pd.DataFrame(bars), settings.confidence)
    plots.distribution("plots/distribution.png", positive, bins)
    plots.training("plots/training.png", curves["sft"], curves["reward"])
    plots.ppo("plots/ppo.png", curves["ppo"], curves["ppo_validation"])

    # 5. The report, in a file and on the terminal.
    report = markdown(plain(result), listed[: settings.shown_samples], settings.confidence)
    with writing("reports/report.md") as aside:
        aside.write_text(report, encoding="utf-8", newline="\n")
    Console().print(Markdown(report))
    gain = result["improvement_over_sft"]
    return f"RLHF - SFT = {gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] in mean P(positive)"


def read_samples(name: str, count: int) -> list[Row]:
    """The first `count` answers of a model.

    Raises:
        StageError: there are fewer.
    """
    rows = read_rows(f"data/samples/{name}.jsonl", {"prompt": str, "response": str, "tokens": list, "finished": bool})
    if len(rows) < count:
        raise StageError(
            f"evaluate.num_samples is {count}, and data/samples/{name}.jsonl has {len(rows)}; "
            "lower it or raise data.prompts_test"
        )
    return rows[:count]


def batches(rows: list[Row], tokenizer: PreTrainedTokenizerBase, device: torch.device, size: int = 64) -> Any:
    """The answers as tensors, `size` at a time, in their order."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        prompts = [encode(tokenizer, row["prompt"]) for row in part]
        yield batch_of(prompts, [row["tokens"] for row in part], tokenizer.pad_token_id, device)


@torch.no_grad()
def score(
    base: PreTrainedModel, reward: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]
) -> tuple[np.ndarray, float, int]:
    """The reward model's scores (N,), and the responses' negative log-likelihood under the base model with their tokens."""
    scores, total, tokens = [], 0.0, 0
    for batch in batches(rows, tokenizer, base.device):
        scores.append(reward_scores(reward, batch.sequences, batch.attention_mask).cpu().numpy())
        likelihood = score_tokens(base, batch, 1.0).log_probs
        total -= float(likelihood[batch.response_mask.bool()].double().sum())
        tokens += int(batch.response_mask.sum())
    return np.concatenate(scores), total, tokens


def plain(tree: Any) -> Any:
    """`tree` with numpy's numbers as Python's."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree.item() if isinstance(tree, np.generic) else tree


if __name__ == "__main__":
    stage("evaluate", __doc__, Params, main, READS, WRITES)
