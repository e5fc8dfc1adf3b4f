"""The report of `evaluate` as Markdown: a verdict, the table, and samples side by side."""

from collections.abc import Sequence

from .records import Row

MODELS = ("base", "sft", "rlhf")
_ROWS = {
    "mean_positive": "mean P(positive)",
    "positive_ratio": "positive ratio (P > 0.5)",
    "lexicon_positive": "positive in a lexicon's opinion",
    "reward": "reward model's score",
    "perplexity": "perplexity under base",
    "distinct_2": "distinct bigrams",
    "duplicated": "duplicated responses",
    "response_tokens": "tokens per response",
    "finished": "ended with EOS",
    "grammar_parses": "parses under the corpus grammar",
    "grammar_positive": "positive in the grammar's opinion, of those",
    "kl_to_sft": "KL from sft (nats per response)",
}


def verdict(result: Row) -> str:
    """One sentence: did RLHF raise positivity over supervised fine-tuning, for this model and seed, and at what cost."""
    gain, sft, rlhf = result["improvement_over_sft"], result["sft"], result["rlhf"]
    size = f"{gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}]"
    if gain["ci_low"] > 0:
        found = f"RLHF raised mean P(positive) over SFT by {size}"
    elif gain["ci_high"] < 0:
        found = f"RLHF lowered mean P(positive) against SFT by {size}"
    else:
        found = f"these {rlhf['samples']} prompts show no difference between RLHF and SFT in mean P(positive): {size}"
    cost = (
        f"perplexity is {rlhf['perplexity'] / sft['perplexity']:.2f} times and distinct bigrams are "
        f"{rlhf['distinct_2'] / max(sft['distinct_2'], 1e-9):.2f} times those of SFT"
    )
    return f"For this model and seed, {found}; {cost}."


def markdown(result: Row, samples: Sequence[Row], confidence: float) -> str:
    """The report.

    Args:
        result: the tree of metrics/evaluation.json.
        samples: rows with prompt, and each model's response and `<model>_positive`.
        confidence: of the intervals.
    """
    lines = ["# Base against RLHF", "", verdict(result), "", f"| | {' | '.join(MODELS)} |", "|---|---:|---:|---:|"]
    for key, title in _ROWS.items():
        cells = [f"{result[model][key]:.3f}" if key in result[model] else "" for model in MODELS]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{result['rlhf']['samples']} test prompts; intervals at {100 * confidence:g} %, of differences paired by prompt.",
        "",
        "| improvement of RLHF | mean P(positive) | positive ratio | effect size | p |",
        "|---|---:|---:|---:|---:|",
    ]
    for key, title in (("improvement", "over base"), ("improvement_over_sft", "over sft")):
        gain = result[key]
        lines.append(
            f"| {title} | {gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] "
            f"| {gain['positive_ratio']:+.3f} [{gain['positive_ratio_ci_low']:+.3f}, {gain['positive_ratio_ci_high']:+.3f}] "
            f"| {gain['effect_size']:.2f} | {gain['p_value']:.4f} |"
        )
    lines += ["", "## The same prompts, side by side", ""]
    for sample in samples:
        lines += [f"**{_escaped(sample['prompt'])}**", ""]
        lines += [f"- {model} ({sample[f'{model}_positive']:.2f}): {_escaped(sample[model].strip())}" for model in MODELS]
        lines.append("")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Generated text as text: no line breaks, no mark-up."""
    flat = " ".join(text.split())
    return "".join("\\" + letter if letter in "\\`*_{}[]<>#|!" else letter for letter in flat)
