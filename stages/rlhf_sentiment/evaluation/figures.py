"""Select from the tree of reports/evaluation.json: the numbers of metrics/evaluation.json, and the rows of two tables.

The metrics are few, so that `dvc metrics diff` can be read. The two tables are in plots/, so that git has them.
"""

from itertools import combinations

from ..engine.records import Row
from .contestants import COMPARISONS, CONTESTANTS

# The metrics of each contestant. No judge and no guard adds to them.
OF_CONTESTANT = (
    "mean_positive",
    "std_positive",
    "positive_ratio",
    "lexicon_positive",
    "reward",
    "perplexity",
    "distinct_2",
    "response_tokens",
    "samples",
)
# The metrics of each comparison of a contestant that is tuned.
OF_COMPARISON = (
    "mean_positive",
    "ci_low",
    "ci_high",
    "p_value",
    "effect_size",
    "positive_ratio",
    "positive_ratio_ci_low",
    "positive_ratio_ci_high",
)


# The figures of a contestant in plots/figures.csv. Each is a share, from 0 to 1.
SHARES = (
    "distinct_1",
    "distinct_3",
    "self_bleu",
    "repetition",
    "duplicated",
    "cut_off",
    "reward_positive",
    "grammar_parses",
    "grammar_positive",
)


def metrics_of(result: Row) -> Row:
    """Return the tree of metrics/evaluation.json.

    Args:
        result: the tree of reports/evaluation.json. It has no `lexicon_positive` if the lexicon is no judge.
    """
    of_tuned = (*OF_CONTESTANT, "kl_to_sft")
    models = {name: _part(result[name], of_tuned if one.is_tuned else OF_CONTESTANT) for name, one in CONTESTANTS.items()}
    pairs = {key: _part(result[key], OF_COMPARISON) for key, (after, _) in COMPARISONS.items() if CONTESTANTS[after].is_tuned}
    return models | pairs


def _part(figures: Row, keys: tuple[str, ...]) -> Row:
    return {key: figures[key] for key in keys if key in figures}


def shares(result: Row) -> list[Row]:
    """Return the rows of plots/figures.csv: model, figure and value. A figure that a model lacks has no row."""
    return [
        {"model": name, "figure": figure, "value": result[name][figure]}
        for figure in SHARES
        for name in CONTESTANTS
        if result[name].get(figure) is not None
    ]


def about_judges(result: Row) -> list[Row]:
    """Return the rows of plots/judges.csv: figure and value.

    The figures are accuracy and calibration error of each judge on whole and on truncated texts, kappa of each pair of judges,
    and the share of preference pairs in which the classifier agrees with the annotators.
    """
    exams = result["judges"]
    found = {f"{key}, {judge}": exams[judge][key] for key in ("accuracy", "accuracy_cut", "ece", "ece_cut") for judge in exams}
    pairs = combinations(exams, 2)
    found |= {f"kappa, {one} and {other}": result["kappa"][f"{one}_{other}"] for one, other in pairs}
    found["agree, classifier and annotators"] = result["annotators"]["agree"]
    return [{"figure": figure, "value": value} for figure, value in found.items()]
