"""The report as Markdown: a verdict, the tables, and answers side by side."""

from collections.abc import Sequence
from itertools import combinations

from rich.console import Console
from rich.markdown import Markdown

from ..engine.messages import escaped, warn
from ..engine.outputs import writing
from ..engine.records import Row
from .contestants import COMPARISONS, CONTESTANTS, REFERENCE, TREATMENT

_ROWS = {
    "mean_positive": "mean P(positive)",
    "std_positive": "standard deviation of P(positive)",
    "positive_ratio": "positive ratio (P > 0.5)",
    "reward": "score of the reward model",
    "perplexity": "perplexity under base",
    "kl_to_sft": "KL to sft (nats per response)",
    "distinct_1": "distinct unigrams",
    "distinct_2": "distinct bigrams",
    "distinct_3": "distinct trigrams",
    "self_bleu": "self-BLEU",
    "repetition": "repeated 4-grams within a response",
    "duplicated": "duplicated responses",
    "response_tokens": "tokens per response",
    "cut_off": "truncated (no EOS)",
    "grammar_parses": "parses under the corpus grammar",
    "grammar_positive": "positive according to the grammar, of those that parse",
}


_BASE = next(iter(CONTESTANTS))
_KEY_OF = {pair: key for key, pair in COMPARISONS.items()}


def verdict(result: Row, confidence: float) -> str:
    """Return one sentence for each contestant that is compared with the reference.

    The sentence says whether the contestant is more positive, and at what cost. It states a difference only if the interval
    excludes 0 and the p-value, adjusted for all pairs, is small enough. The interval alone is not enough, because a bootstrap
    interval of few prompts is too narrow.
    """
    measured = {key: after for key, (after, before) in COMPARISONS.items() if before == REFERENCE}
    found = (_verdict(result, key, after, confidence) for key, after in measured.items())
    return "\n".join(f"For this model and seed, {sentence}." for sentence in found)


def _verdict(result: Row, key: str, name: str, confidence: float) -> str:
    gain, before, after = result[key], result[REFERENCE], result[name]
    reference, contestant = CONTESTANTS[REFERENCE].title, CONTESTANTS[name].title
    size = f"{gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}]"
    sure = gain["p_holm"] < 1 - confidence
    if sure and gain["ci_low"] > 0:
        found = f"{contestant} raised mean P(positive) over {reference} by {size}"
    elif sure and gain["ci_high"] < 0:
        found = f"{contestant} lowered mean P(positive) against {reference} by {size}"
    else:
        found = f"these {result['prompts']} prompts show no difference between {contestant} and {reference} "
        found += f"in mean P(positive): {size}"
        found += f", p {gain['p_holm']:.2f}" if gain["ci_low"] > 0 or gain["ci_high"] < 0 else ""
    found += f"; perplexity is {after['perplexity'] / before['perplexity']:.2f} times"
    if after["distinct_2"] is None or before["distinct_2"] is None:
        return f"{found} that of {reference}"
    variety = after["distinct_2"] / max(before["distinct_2"], 1e-9)
    return f"{found} and distinct bigrams are {variety:.2f} times those of {reference}"


def markdown(result: Row, warnings: Sequence[str], samples: Sequence[Row], confidence: float, preferred_for: str) -> str:
    """Return the report.

    Args:
        result: the tree of reports/evaluation.json.
        warnings: a line for each guard that is crossed, and for figures that are absent.
        samples: rows with `prompt`, and for each contestant its response and `<name>_positive`.
        confidence: the level of the intervals.
        preferred_for: what annotators preferred a response for.
    """
    lines = [f"# {CONTESTANTS[_BASE].title} against {CONTESTANTS[TREATMENT].title}", "", verdict(result, confidence), ""]
    lines += [f"- warning: {line}" for line in warnings] + [""] * bool(warnings)
    lines += _summary(result) + _models(result) + _improvements(result, confidence) + _judges(result)
    lines += _annotators(result["annotators"], preferred_for)
    lines += ["## Responses to the same prompts, side by side", ""]
    for sample in samples:
        lines += [f"**{escaped(sample['prompt'])}**", ""]
        lines += [f"- {model} ({sample[f'{model}_positive']:.2f}): {escaped(sample[model].strip())}" for model in CONTESTANTS]
        lines.append("")
    return "\n".join(lines)


def publish(report: str, warnings: Sequence[str]) -> None:
    """Write the report to reports/report.md, and show it and the warnings on the terminal."""
    with writing("reports/report.md") as aside:
        aside.write_text(report, encoding="utf-8", newline="\n")
    Console().print(Markdown(report))
    for line in warnings:
        warn("evaluate", line)


def headline(result: Row) -> str:
    """Return the effect of the treatment, for the last line of the stage."""
    gain, pair = result[_KEY_OF[TREATMENT, REFERENCE]], f"{CONTESTANTS[TREATMENT].title} - {CONTESTANTS[REFERENCE].title}"
    return f"{pair} = {gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] in mean P(positive)"


def _summary(result: Row) -> list[str]:
    before, after, gain = result[_BASE], result[TREATMENT], result[_KEY_OF[TREATMENT, _BASE]]
    lines = [
        f"| | {CONTESTANTS[_BASE].title} | {CONTESTANTS[TREATMENT].title} | improvement |",
        "|---|---:|---:|---:|",
    ]
    intervals = {"mean_positive": ("ci_low", "ci_high"), "positive_ratio": ("positive_ratio_ci_low", "positive_ratio_ci_high")}
    for key in ("mean_positive", "std_positive", "positive_ratio"):
        rise = ""
        if key in intervals:
            low, high = (gain[bound] for bound in intervals[key])
            rise = f"{gain[key]:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {_ROWS[key]} | {before[key]:.3f} | {after[key]:.3f} | {rise} |")
    return [*lines, ""]


def _models(result: Row) -> list[str]:
    lines = [f"| | {' | '.join(CONTESTANTS)} |", f"|---|{'---:|' * len(CONTESTANTS)}"]
    others = {f"{name}_positive": f"positive ratio, {name}" for name in result["judges"]}
    for key, title in (dict.fromkeys(("mean_positive", "std_positive", "positive_ratio"), "") | others | _ROWS).items():
        cells = [_cell(result[model], key) for model in CONTESTANTS]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(figures: Row, key: str) -> str:
    if key not in figures:
        return ""
    return "-" if figures[key] is None else f"{figures[key]:.3f}"


def _improvements(result: Row, confidence: float) -> list[str]:
    samples = result[TREATMENT]["samples"]
    lines = [
        f"Each contestant gave {samples} responses to {result['prompts']} prompts. Differences are paired by",
        f"prompt, and the intervals are {100 * confidence:g} % confidence intervals. The last column is the number of prompts",
        "that are needed to detect a difference of 0.05 with power 0.8.",
        "",
        "| | mean P(positive) | positive ratio | effect size | prompts |",
        "|---|---:|---:|---:|---:|",
    ]
    for key, (after, before) in COMPARISONS.items():
        gain = result[key]
        lines.append(
            f"| {after} over {before} | {gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] "
            f"| {gain['positive_ratio']:+.3f} [{gain['positive_ratio_ci_low']:+.3f}, {gain['positive_ratio_ci_high']:+.3f}] "
            f"| {gain['effect_size']:.2f} | {gain['prompts_needed']} |"
        )
    lines += [
        "",
        "The p-values are those of a paired permutation test, of the same test adjusted for all pairs of contestants (Holm),",
        "of Wilcoxon's signed-rank test, and of McNemar's test on the positive ratio.",
        "",
        "| | permutation | Holm | Wilcoxon | McNemar |",
        "|---|---:|---:|---:|---:|",
    ]
    for key, (after, before) in COMPARISONS.items():
        cells = (_p(result[key][name]) for name in ("p_value", "p_holm", "p_wilcoxon", "p_mcnemar"))
        lines.append(f"| {after} over {before} | {' | '.join(cells)} |")
    return [*lines, ""]


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _judges(result: Row) -> list[str]:
    lines = [
        "The accuracy and the expected calibration error of each judge on held-out labelled texts. The texts are whole, and",
        "then truncated to the length of a response.",
        "",
        "| | accuracy | truncated | calibration error | truncated |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, exam in result["judges"].items():
        cells = (f"{exam[key]:.3f}" for key in ("accuracy", "accuracy_cut", "ece", "ece_cut"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    pairs = combinations(result["judges"], 2)
    agreed = ", ".join(f"{one} and {other} {result['kappa'][f'{one}_{other}']:.2f}" for one, other in pairs)
    if agreed:
        lines += ["", f"Agreement of the judges on the responses (Cohen's kappa): {agreed}."]
    gap = f"{result['reward_hacking_gap']:+.2f} standard deviations"
    lines += [
        "",
        f"From {REFERENCE} to {TREATMENT}, the reward model's score rose by {gap} more",
        "than the judge's P(positive).",
    ]
    return [*lines, ""]


def _annotators(sided: Row, preferred_for: str) -> list[str]:
    chose = "The preference pairs prefer positive responses"
    if preferred_for != "positivity":
        chose = f"The annotators chose by {escaped(preferred_for)}, not by positivity. "
        chose += f"{CONTESTANTS[TREATMENT].title} therefore does not aim at positivity here"
    agree = f"{sided['agree']:.2f} [{sided['agree_ci_low']:.2f}, {sided['agree_ci_high']:.2f}] of {sided['pairs']}"
    return [f"{chose}. The judge finds the chosen response more positive in {agree} held-out preference pairs.", ""]
