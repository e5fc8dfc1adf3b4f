"""Write the review of two revisions as Markdown: the verdict first, and each detail in a table or a line."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from comparable import Difference, apart, incomparable, other_judge
from review_changes import NEW, REMOVED, Answer, Rerun, answers, reruns
from review_figures import APART, BETTER, CHANGED, NOISE, SAME, WORSE, Figure, Seeds, bounds, figures, interval
from revisions import Side
from rlhf_sentiment.engine.messages import cut, escaped, listed, visible

MARKER = "<!-- written by make review -->"  # by which a comment is found again
SENTIMENT, KL = "evaluation.rlhf.mean_positive", "evaluation.rlhf.kl_to_sft"
HEADLINE = (
    SENTIMENT,
    "evaluation.rlhf.positive_ratio",
    "evaluation.rlhf.lexicon_positive",
    "evaluation.improvement.mean_positive",
    "evaluation.improvement_over_sft.mean_positive",
    KL,
    "evaluation.rlhf.perplexity",
    "evaluation.rlhf.distinct_2",
    "evaluation.rlhf.response_tokens",
    "evaluation.base.mean_positive",
    "evaluation.sft.mean_positive",
    "reward.accuracy",
    "judge.accuracy",
)
_PLOTS = "`review/index.html` has the plots of both revisions, also offline. On a pull request, it is in the artifact `review`."
_MOST = 8  # names in one line
_LONGEST = 240  # characters of an answer
_LONGEST_NAME = 80  # characters of a name or a value
_KINDS_OF_ARITHMETIC = re.compile(r"(.*\.)?(dtype|device|threads|arithmetic(\..*)?|launcher(\..*)?)")


class Clone(NamedTuple):
    """What a clone says besides the files of the two revisions.

    Attributes:
        base: the name of the revision before.
        compared: the sentence that says which commits are compared.
        notes: further sentences about the two revisions.
        stale: the stages that do not fit the workspace, each with the files and settings that changed.
        processors: the processors of the stages' last runs here; empty if no stage ran here.
    """

    base: str
    compared: str
    notes: list[str]
    stale: dict[str, list[str]]
    processors: list[str]


def page_of(clone: Clone, before: Side, after: Side, noise: Seeds) -> str:
    """Return the review of two revisions in Markdown."""
    ran, differ = reruns(before, after), incomparable(before, after)
    stale = "Stale, so run `make repro` first. " if clone.stale else ""
    parts = [
        f"{MARKER}\n# Review against {code(clone.base)}",
        f"**{stale}{verdict(clone.base, before, after, noise, differ)}**",
        _bullets([*_warnings(before, after, differ, clone.stale), *clone.notes]),
        clone.compared,
        f"## Metrics\n\n{_metrics(clone.base, before, after, noise, differ)}",
        f"## Params\n\n{_params(clone.base, before.params, after.params, differ)}",
        f"## Stages that reran\n\n{_stages(ran)}",
        f"## Arithmetic and machine\n\n{_bullets(_arithmetic(before, after, ran, clone.processors))}",
        f"## Answers of the RLHF model\n\n{_answers(clone.base, before, after)}",
        f"## Plots\n\n{_PLOTS}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(base: str, before: Side, after: Side, noise: Seeds, differ: Sequence[Difference] = ()) -> str:
    """Return whether judged sentiment improved, by how much, against which seed noise, and at which KL."""
    old, new = before.metrics.get(SENTIMENT), after.metrics.get(SENTIMENT)
    if new is None:
        return "The workspace has no judged sentiment: run `make repro`."
    is_now = f"mean P(positive) of the RLHF model is {new:.6g}{_at_kl(before, after)}."
    if old is None:
        return f"{code(base)} has no judged sentiment to compare with. Now {is_now}"
    if before == after:
        return f"Nothing that is measured differs from {code(base)}: {is_now}"
    (one,) = figures({SENTIMENT: old}, {SENTIMENT: new}, noise.noise)
    went = f"mean P(positive) of the RLHF model went from {old:.6g} to {new:.6g}{_at_kl(before, after)}."
    if others := [one.what for one in differ if apart([one], SENTIMENT)]:
        return f"Not comparable (other {listed(others)}): {went}"
    if one.mark == SAME:
        return f"Judged sentiment is the same: {is_now}"
    if one.noise is None:
        return f"Judged sentiment changed by {new - old:+.4g}; seed noise is unknown: {went}"
    by, limit = f"{abs(new - old):.4g}", f"{one.noise:.4g}"
    if one.mark == NOISE:
        return f"Judged sentiment changed by {by}, which is within seed noise ({limit}): {went}"
    verb = "improved" if one.mark == BETTER else "worsened"
    return f"Judged sentiment {verb} by {by}, which is beyond seed noise ({limit}): {went}"


def _at_kl(before: Side, after: Side) -> str:
    old, new = before.metrics.get(KL), after.metrics.get(KL)
    if new is None:
        return ""
    return f", at a KL of {new:.4g} nats per response" + (f" (before: {old:.4g})" if old not in (None, new) else "")


def _warnings(before: Side, after: Side, differ: Sequence[Difference], stale: dict[str, list[str]]) -> list[str]:
    lines = [f"**Not comparable:** the {one.what} changed ({listed_as_code(one.why)})." for one in differ]
    if other_judge(before, after) and "judge" not in [one.what for one in differ]:
        lines.append("The judge has other bytes (`models/judge`), though its inputs are the same. Compare with care.")
    if stale:
        named = [f"{code(stage)} ({listed_as_code(causes, 2)})" for stage, causes in stale.items()]
        lines.append(
            f"**Stale:** {', '.join(named)}. The metrics do not belong to this code and these settings. Run `make repro`."
        )
    return lines


def _metrics(base: str, before: Side, after: Side, noise: Seeds, differ: Sequence[Difference]) -> str:
    other = {name for name in after.metrics if apart(differ, name)}
    shown = [one for one in figures(before.metrics, after.metrics, noise.noise, other) if not interval(one.name)]
    if before.metrics == after.metrics:
        return f"All {len(shown)} are the same, and so are the bounds of their intervals." if shown else "None."
    headline = sorted((one for one in shown if one.name in HEADLINE), key=lambda one: HEADLINE.index(one.name))
    others = [one for one in shown if one.name not in HEADLINE and one.mark in (BETTER, WORSE, CHANGED, APART)]
    count = Counter(one.mark for one in shown)
    counted = ", ".join(f"{count[mark]} {mark}" for mark in (BETTER, WORSE, CHANGED, APART, NOISE, SAME) if count[mark])
    parts = [
        _table(base, before, after, headline, noise),
        f"Of {len(shown)} metrics: {counted}. Brackets are intervals, whose bounds are not counted. {_noise(noise)}"
        if shown
        else "",
        _folded(f"{len(others)} more metrics that changed", _table(base, before, after, others, noise)) if others else "",
        _one_sided(base, _lacking(after.metrics, before.metrics), _lacking(before.metrics, after.metrics)),
    ]
    return "\n\n".join(part for part in parts if part)


def _noise(noise: Seeds) -> str:
    if not noise.noise:
        return f"{noise.caveat} Seed noise is unknown, so a change may be chance: `make seeds N=5` measures it.".strip()
    at = f", commit {code(noise.commit[:7])}" if noise.commit else ""
    return (
        "*Seed noise*: two seeds of the same settings differ by at most t·√2·s in 95 % of the cases "
        f"({noise.runs} seeds, `docs/results/seeds.csv`{at}). {noise.caveat}"
    ).strip()


def _table(base: str, before: Side, after: Side, rows: list[Figure], noise: Seeds) -> str:
    if not rows:
        return ""
    cells = [
        {
            "metric": code(one.name.removeprefix("evaluation.")),
            code(base): _value(one.name, one.before, before),
            "now": _value(one.name, one.after, after),
            "change": "0" if one.mark == SAME else f"{one.after - one.before:+.4g}",
            "seed noise": "unknown" if one.noise is None else f"{one.noise:.4g}",
            "mark": f"**{one.mark}**" if one.mark in (BETTER, WORSE, APART) else one.mark,
        }
        for one in rows
    ]
    if not noise.noise:
        cells = [{name: cell for name, cell in row.items() if name != "seed noise"} for row in cells]
    return _grid(cells, right=(code(base), "now", "change", "seed noise"))


def _value(name: str, value: float, one: Side) -> str:
    around = bounds(name, one.metrics)
    return f"{value:.6g}" + (f" [{around[0]:.3g}, {around[1]:.3g}]" if around else "")


def _params(base: str, old: dict[str, Any], new: dict[str, Any], differ: Sequence[Difference]) -> str:
    matter = {name for one in differ for name in one.why} & old.keys()
    changed = [key for key, value in new.items() if key in old and old[key] != value]
    rows = [{"setting": code(key), code(base): code(_shown(old[key])), "now": code(_shown(new[key]))} for key in changed]
    if matter:
        rows = [row | {"mark": "**not comparable**" if key in matter else ""} for key, row in zip(changed, rows, strict=True)]
    added, gone = ([f"{key}: {_shown(one[key])}" for key in _lacking(one, other)] for one, other in ((new, old), (old, new)))
    return "\n\n".join(filter(None, (_grid(rows), _one_sided(base, added, gone)))) or "The same."


def _lacking(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names in `one` that `other` lacks."""
    return [name for name in one if name not in other]


def _shown(value: object) -> str:
    return "empty" if value is None else str(value)


def _one_sided(base: str, added: list[str], gone: list[str]) -> str:
    """Return one line with what only one side has."""
    lines = [f"Only now: {listed_as_code(added)}."] if added else []
    return " ".join(lines + ([f"Only in {code(base)}: {listed_as_code(gone)}."] if gone else []))


def _stages(ran: list[Rerun]) -> str:
    rows = [{"stage": code(one.stage), "what differs": _causes(one), "outs that differ": _outs(one)} for one in ran]
    return _grid(rows) or "None: dvc.lock is the same."


def _causes(one: Rerun) -> str:
    if not one.causes:
        return "only the bytes of its outs"
    return "; ".join(f"{cause} {listed_as_code(names, 2)}".strip() for cause, names in one.causes.items())


def _outs(one: Rerun) -> str:
    return listed_as_code(one.outs, 2) if one.outs else "" if one.causes.keys() & {NEW, REMOVED} else "none: the same bytes"


def _arithmetic(before: Side, after: Side, ran: list[Rerun], processors: list[str]) -> list[str]:
    keys = [key for key in after.params if key in before.params and _KINDS_OF_ARITHMETIC.fullmatch(key)]
    changed = [key for key in keys if before.params[key] != after.params[key]]
    lines = [f"{code(key)}: {_shown(before.params[key])} before, **{_shown(after.params[key])}** now." for key in changed]
    same = [f"{key}: {_shown(after.params[key])}" for key in keys if key not in changed]
    lines += [f"The same: {listed_as_code(same)}."] if same else []
    lines += [
        f"{code(stage)} computed products in {before.dtypes[stage]} before, and in **{dtype}** now."
        for stage, dtype in after.dtypes.items()
        if before.dtypes.get(stage, dtype) != dtype
    ]
    pins = [name for name in before.pins.keys() & after.pins.keys() if before.pins[name] != after.pins[name]]
    lines += [f"{code(name)}: {before.pins[name]} before, {after.pins[name]} now." for name in sorted(pins)]
    other = [one.stage for one in ran if not one.causes and one.outs]
    if other:
        lines.append(
            f"{listed_as_code(other)} had the same code, params and inputs, but **other libraries, threads or processor**."
        )
    here = f"{listed_as_code(processors)} in the last runs in this clone"
    return [*lines, f"Processor: {here if processors else 'unknown, as git has no record of it'}."]


def _answers(base: str, before: Side, after: Side) -> str:
    chosen, changed, shared = answers(before, after)
    if not shared:
        return "The two revisions list no common prompts in plots/samples.csv."
    if not chosen:
        return f"The same for all {shared} listed prompts."
    return "\n\n".join([f"{changed} of {shared} listed answers differ.", *(_quoted(base, one) for one in chosen)])


def _quoted(base: str, one: Answer) -> str:
    return "\n".join(
        (
            f"*{one.kind.capitalize()}.* **{prose(one.prompt)}**",
            "",
            f"- {code(base)}, P(positive) {one.positive_before:.2f}: {prose(one.before)}",
            f"- now, P(positive) {one.positive_after:.2f}: {prose(one.after)}",
        )
    )


def prose(text: str) -> str:
    """Return a model's text for Markdown. A word joiner keeps GitHub from reading `@name` and `#1` as references."""
    return re.sub(r"(@|\\#)", "\\1\u2060", escaped(cut(text, _LONGEST)))


def code(text: str) -> str:
    """Return a name or a value as code, also inside a table."""
    return f"`{visible(cut(text, _LONGEST_NAME)).replace('`', chr(39)).replace('|', chr(92) + '|') or ' '}`"


def listed_as_code(names: Sequence[str], most: int = _MOST) -> str:
    """Return the first names as code, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(code(name) for name in names[:most]) + more


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _grid(rows: list[dict[str, str]], right: Collection[str] = ()) -> str:
    align = ["right" if name in right else "left" for name in rows[0]] if rows else []
    return tabulate(rows, headers="keys", tablefmt="pipe", colalign=align, disable_numparse=True)
