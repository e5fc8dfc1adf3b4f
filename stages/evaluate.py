"""Evaluate: did it work, how certain is that, and what did it cost?

The judge, which no model was trained against, says how positive each answer is. Differences are paired by prompt, with
intervals and tests. A lexicon, the reward model and any other judge that `evaluate.judges` names give their opinions too. All
judges are measured on held-out labelled texts. The cost of positivity is likeness to the base model, variety, repetition and
KL from the fine-tuned model. A warning says where a guard is crossed. On the synthetic source the grammar that wrote the corpus
says whether an answer parses, and which polarity it has.
"""

from rlhf_sentiment.engine.start import stage  # isort: split

from itertools import chain

from rlhf_sentiment.engine.messages import warn
from rlhf_sentiment.engine.params import Device, Seed, Settings
from rlhf_sentiment.engine.records import read_json, read_table, write_metrics
from rlhf_sentiment.evaluation.contestants import CONTESTANTS
from rlhf_sentiment.evaluation.exam import agreement_with_annotators, read_exam, scored
from rlhf_sentiment.evaluation.guards import crossed
from rlhf_sentiment.evaluation.judges import agreement
from rlhf_sentiment.evaluation.measures import hacking_gap, measures, plain
from rlhf_sentiment.evaluation.panel import Panel, pooled
from rlhf_sentiment.evaluation.plots import draw
from rlhf_sentiment.evaluation.report import markdown, publish
from rlhf_sentiment.evaluation.samples import read_samples
from rlhf_sentiment.evaluation.statistics import comparisons
from rlhf_sentiment.evaluation.tables import make_tables, side_by_side, write_tables
from rlhf_sentiment.models.devices import make_deterministic, quiet, resolve_device
from rlhf_sentiment.settings.evaluate import EvaluateSettings
from rlhf_sentiment.settings.ppo import RolloutSettings

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
    "models/pretrained",
    *(one.folder for one in CONTESTANTS.values()),
    "models/reward",
    "models/judge",
    "metrics/data.json",
    "metrics/judge.json",
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
    ppo: RolloutSettings
    evaluate: EvaluateSettings


def main(params: Params) -> str:
    quiet()
    make_deterministic(params.seed)
    settings, device = params.evaluate, resolve_device(params.device)
    certainty = {"confidence": settings.confidence, "resamples": settings.resamples, "seed": params.seed}
    source = read_json("metrics/data.json", {"source": str, "preferred_for": str})
    words = read_json("metrics/judge.json", {"cut_words": int})["cut_words"]
    curves = {name: read_table(f"plots/{name}.csv", columns) for name, columns in CURVES.items()}
    samples, exam = read_samples(settings.samples_per_prompt), read_exam(settings.exam_texts, words)

    # 1. The judges' opinions of the answers and of the exam's texts.
    panel = Panel(settings, exam, samples, device)
    judged, examined = panel.on_answers(samples), panel.on_exam(exam)
    positive = {name: one.positive["classifier"].reshape(len(samples.prompts), -1) for name, one in judged.items()}

    # 2. The figures of each contestant, the guards that it crosses, and the differences between contestants.
    figures_of = measures(samples, judged, params.ppo.temperature, source["source"] == "synthetic", device)
    warnings = crossed(figures_of, settings.guards)
    result = plain(
        {"prompts": len(samples.prompts)}
        | {name: row | {"guards_crossed": len(warnings[name])} for name, row in figures_of.items()}
        | comparisons(positive, **certainty)
        | {"reward_hacking_gap": hacking_gap(judged)}
        | {"judges": scored(examined, exam.labels), "kappa": agreement(pooled(judged))}
        | {"annotators": agreement_with_annotators(panel.opinions["classifier"], settings.confidence)}
    )
    write_metrics("metrics/evaluation.json", result)

    # 3. Tables, plots and the report.
    listed = side_by_side(samples, positive, settings.listed_prompts)
    tables = make_tables(result, positive, examined, exam.labels, certainty)
    write_tables(tables, listed)
    draw(tables, positive, curves, words, settings.confidence)
    lines = list(chain.from_iterable(warnings.values()))
    publish(markdown(result, lines, listed[: settings.shown_samples], settings.confidence, source["preferred_for"]))
    for line in lines:
        warn("evaluate", line)
    gain = result["improvement_over_sft"]
    return f"RLHF - SFT = {gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}] in mean P(positive)"


if __name__ == "__main__":
    stage("evaluate", __doc__, Params, main, READS, WRITES, lower="evaluate.exam_texts, or evaluate.num_samples")
