"""Guards: warnings if the cost of positivity is too high, compared with the reference."""

from typing import NamedTuple

from ..engine.records import Row
from ..settings.evaluate import Guards
from .contestants import REFERENCE


class Guard(NamedTuple):
    """A limit on one figure of a model.

    Attributes:
        key: the figure.
        most: whether the limit is a maximum. Otherwise it is a minimum.
        relative: "times" limits the figure divided by the reference's, "more" the figure minus the reference's, and "" the
            figure itself.
    """

    key: str
    most: bool
    relative: str


GUARDS = {
    "max_perplexity": Guard("perplexity", True, "times"),
    "max_kl": Guard("kl_to_sft", True, ""),
    "min_distinct_2": Guard("distinct_2", False, "times"),
    "max_self_bleu": Guard("self_bleu", True, "more"),
    "max_repetition": Guard("repetition", True, "more"),
    "max_duplicated": Guard("duplicated", True, "more"),
    "max_cut_off": Guard("cut_off", True, "more"),
    "min_length": Guard("response_tokens", False, "times"),
    "max_length": Guard("response_tokens", True, "times"),
}


def guard(models: dict[str, Row], guards: Guards) -> list[str]:
    """Add `guards_crossed` to the figures of each model, and return a line for each guard that a model crosses.

    Args:
        models: the figures of each model. The reference must be among them.
        guards: the limits.
    """
    lines = []
    for name, figures in models.items():
        own = crossed(figures, models[REFERENCE], guards)
        figures["guards_crossed"] = len(own)
        lines += [f"{name}: {line}" for line in own]
    return lines


def crossed(figures: Row, reference: Row, guards: Guards) -> list[str]:
    """Return a line for each guard that a model with these figures crosses: figure and limit."""
    lines = []
    for setting, (key, most, relative) in GUARDS.items():
        limit = getattr(guards, setting)
        figure, unit = figures[key], ""
        if figure is None or reference[key] is None:  # too few tokens
            continue
        if relative == "times":
            figure, unit = figure / max(reference[key], 1e-9), f" times {REFERENCE}'s"
        elif relative == "more":
            figure, unit = figure - reference[key], f" more than {REFERENCE}'s"
        figure = round(figure, 9)  # 1.0 - 0.7 is more than 0.3 in floating point
        if limit is not None and (figure > limit if most else figure < limit):
            side = "above" if most else "below"
            lines.append(f"{key} is {figure:.3g}{unit}, {side} evaluate.guards.{setting} {limit:g}")
    return lines
