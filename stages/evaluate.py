"""Evaluate: did it work, how certain is that, and what did it cost?

The judge measures how positive each answer is. No model was trained against the judge. Differences are paired by prompt, with
intervals and tests. A lexicon, the reward model and any other judge that `evaluate.judges` names give their opinions too. All
judges are measured on held-out labelled texts. The costs of positivity are less likeness to the base model, less variety, more
repetition, and KL from the fine-tuned model. A warning says where a guard is crossed. On the synthetic source, the grammar that
wrote the corpus says whether an answer parses, and which polarity it has.
"""

from rlhf_sentiment.engine.start import begin  # isort: split

from rlhf_sentiment.evaluation.contestants import CONTESTANTS

CURVES = {
    "sft": ("step", "loss"),
    "reward": ("step", "loss", "accuracy"),
    "ppo": ("step", "score", "kl_penalty", "kl_k3", "entropy"),
    "ppo_validation": ("step", "score", "kl"),
}
READS = [
    *(one.answers for one in CONTESTANTS.values()),
    *(one.rollouts for one in CONTESTANTS.values() if one.rollouts),
    "data/prepared/labelled.jsonl",
    "data/prepared/preferences.jsonl",
    "data/hashes/evaluate.json",
    *(one.folder for one in CONTESTANTS.values()),
    "models/reward",
    "models/judge",
    "reports/data.json",
    "reports/judge.json",
    *(f"plots/{name}.csv" for name in CURVES),
]
WRITES = [
    "metrics/evaluation.json",
    "plots/comparison.csv",
    "plots/distribution.csv",
    "plots/reliability.csv",
    "plots/frontier.csv",
    "plots/samples.csv",
    "plots/figures.csv",
    "plots/judges.csv",
    "plots/training.png",
    "plots/ppo.png",
    "plots/comparison.png",
    "plots/distribution.png",
    "plots/reliability.png",
    "plots/frontier.png",
    "reports/report.md",
    "reports/evaluation.json",
    "reports/answers.csv.gz",
]

if __name__ == "__main__":
    begun = begin("evaluate", __doc__, READS, WRITES, has_ranks=True)

from typing import Any, NamedTuple

import pandas as pd
import torch

from rlhf_sentiment.engine.arithmetic import Computing
from rlhf_sentiment.engine.ranks import is_main
from rlhf_sentiment.engine.records import Row, read_json, read_table, write_metrics, write_table
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.engine.tracking import log_table
from rlhf_sentiment.evaluation.exam import Exam, read_exam
from rlhf_sentiment.evaluation.figures import about_judges, metrics_of, shares
from rlhf_sentiment.evaluation.guards import guard
from rlhf_sentiment.evaluation.judged_answers import table_of_answers, write_answers
from rlhf_sentiment.evaluation.measures import figures_of_contestants, hacking_gap, plain, too_few_tokens
from rlhf_sentiment.evaluation.panel import Judged, figures_of_judges, judge
from rlhf_sentiment.evaluation.plot_data import make_tables, side_by_side, write_tables
from rlhf_sentiment.evaluation.plots import draw
from rlhf_sentiment.evaluation.report import headline, markdown, publish
from rlhf_sentiment.evaluation.samples import Samples, read_samples
from rlhf_sentiment.evaluation.statistics import comparisons
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.settings.evaluate import EvaluateSettings
from rlhf_sentiment.settings.ppo import RolloutSettings


class Params(Computing):
    """The settings that the stage reads."""

    ppo: RolloutSettings
    evaluate: EvaluateSettings

    @property
    def certainty(self) -> dict[str, Any]:
        """The arguments of the intervals and the tests."""
        return {"confidence": self.evaluate.confidence, "resamples": self.evaluate.resamples, "seed": self.seed}


class Inputs(NamedTuple):
    """What the stages before this one wrote.

    Attributes:
        source, preferred_for: of reports/data.json.
        words: the number of words of a cut text.
        curves: what the training stages wrote, by the name of the file in plots/.
        samples: the answers of the contestants.
        exam: the labelled texts.
    """

    source: str
    preferred_for: str
    words: int
    curves: dict[str, pd.DataFrame]
    samples: Samples
    exam: Exam


def main(params: Params) -> str:
    """Judge the answers, and write the figures, the plots and the report."""
    quiet()
    device = set_up(params, "evaluate")
    inputs = read_inputs(params.evaluate)
    judged = judge(params.evaluate, inputs.exam, inputs.samples, device)
    models = costs_of_models(params, inputs, judged, device)
    if not is_main():
        return ""
    result, warnings = measure(params, inputs, judged, models)
    write_figures(result)
    write_answers("reports/answers.csv.gz", table_of_answers(inputs.samples, judged.answers))
    log_table("evaluation", [{"model": name, **result[name]} for name in CONTESTANTS])
    listed = draw_plots(params, inputs, judged, result)
    shown = listed[: params.evaluate.shown_samples]
    split = params.evaluate.split
    if split != "test":
        warnings.insert(0, f"the answers are to {split} prompts (evaluate.split), so the figures are not test results")
    publish(markdown(result, warnings, shown, params.evaluate.confidence, inputs.preferred_for), warnings)
    return headline(result) + ("" if split == "test" else f" on {split} prompts")


def costs_of_models(params: Params, inputs: Inputs, judged: Judged, device: torch.device) -> dict[str, Row]:
    """Return the figures of each contestant."""
    tokens, synthetic = params.evaluate.distinct_tokens, inputs.source == "synthetic"
    return figures_of_contestants(inputs.samples, judged.answers, params.ppo.temperature, tokens, synthetic, device)


def measure(params: Params, inputs: Inputs, judged: Judged, models: dict[str, Row]) -> tuple[Row, list[str]]:
    """Return the tree of reports/evaluation.json, and a line for each warning."""
    samples, settings = inputs.samples, params.evaluate
    few = too_few_tokens(samples, settings.distinct_tokens)
    warnings = few + guard(models, settings.guards)
    result: Row = {"prompts": len(samples.prompts)} | models | comparisons(judged.positive, **params.certainty)
    result["reward_hacking_gap"] = hacking_gap(judged.answers)
    return plain(result | figures_of_judges(judged, inputs.exam.labels, settings.confidence)), warnings


def write_figures(result: Row) -> None:
    """Write the tree, the numbers of it that are metrics, and the shares of it that are in plots/."""
    write_metrics("reports/evaluation.json", result)
    write_metrics("metrics/evaluation.json", metrics_of(result))
    write_table("plots/figures.csv", shares(result), digits=4)
    write_table("plots/judges.csv", about_judges(result), digits=4)


def draw_plots(params: Params, inputs: Inputs, judged: Judged, result: Row) -> list[Row]:
    """Write the tables and the figures to plots/. Return the answers side by side."""
    listed = side_by_side(inputs.samples, judged.positive, params.evaluate.listed_prompts)
    tables = make_tables(result, judged.positive, judged.exam, inputs.exam.labels, params.certainty)
    write_tables(tables, listed)
    draw(tables, judged.positive, inputs.curves, inputs.words, params.evaluate.confidence)
    return listed


def read_inputs(settings: EvaluateSettings) -> Inputs:
    """Read what the stages before this one wrote.

    Raises:
        StageError: a file is damaged, or the contestants answered different prompts.
    """
    data = read_json("reports/data.json", {"source": str, "preferred_for": str})
    words = read_json("reports/judge.json", {"cut_words": int})["cut_words"]
    curves = {name: read_table(f"plots/{name}.csv", columns) for name, columns in CURVES.items()}
    samples, exam = read_samples(settings.samples_per_prompt), read_exam(settings.exam_texts, words)
    return Inputs(data["source"], data["preferred_for"], words, curves, samples, exam)


if __name__ == "__main__":
    stage(begun, Params, main, lower="evaluate.exam_texts, or evaluate.num_samples")
