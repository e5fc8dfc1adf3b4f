"""Write review/: what changed between a revision and the workspace, as a page that is read in a minute, and all plots.

    python tools/review.py main

review/review.md has the verdict, metrics, params, stages and answers. review/index.html has the same text, and the plots of
both revisions as `dvc plots diff` draws them. All of it comes from files in git: it needs no cache, no remote and no network.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from comparable import incomparable
from plots_page import write_page
from review_figures import Seeds, seeds
from review_page import Clone, code, listed_as_code, page_of, prose
from revisions import Side, asked, at_commit, commit_of, git, in_workspace, is_shallow, used
from rlhf_sentiment.engine.errors import StageError, first_line, one_line_errors
from rlhf_sentiment.engine.messages import Parser

OUT = Path("review")
SEEDS = Path("docs/results/seeds.csv")
_NO_EFFECT = ("seed", "device", "report_to", "checkpoint_every.")
_STYLE = """<style>
#review { order: -99; flex-basis: 100%; line-height: 1.4; }
#review > * { max-width: 100ch; }
#review table { border-collapse: collapse; max-width: none; }
#review th, #review td { border: 1px solid #ccc; padding: 2px 8px; vertical-align: top; }
#review code { background: #f2f2f2; }
</style>
"""


def main() -> None:
    """Write review/review.md and review/index.html."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` is no error
    parser = Parser(prog="review", description="Compare a revision with the workspace.")
    parser.add_argument("base", metavar="BASE", help="the revision before: a branch, a tag, a commit or an experiment")
    base = parser.parse_args().base
    with one_line_errors("review"):
        shutil.rmtree(OUT, ignore_errors=True)  # the page of an earlier run must not stay if this run fails
        commit = commit_of(base)
        short = git("rev-parse", "--short", commit)
        base = short if commit.startswith(base) else base
        before, after = at_commit(commit, base), in_workspace()
        clone = Clone(
            base, _compared(base, commit), [*_notes(base, commit), *_other_tables(base, commit)], _stale(), _processors()
        )
        noise = seeds(SEEDS.read_text(encoding="utf-8", errors="replace") if SEEDS.is_file() else "")
        page = page_of(clone, before, after, noise_of(noise, before, after))
        OUT.mkdir(exist_ok=True)
        (OUT / "review.md").write_text(page, encoding="utf-8")
        write_plots(short, page)
        print(page.partition("**")[2].partition("**")[0])
        print(f"review: wrote {OUT}/review.md and {OUT}/index.html")


def noise_of(found: Seeds, before: Side, after: Side) -> Seeds:
    """Return seed noise if the seeds were measured as one of the two revisions, with a sentence on what else differs.

    Where the dvc.lock of a seed is that of a revision, nothing differs. Otherwise the commit of the seeds has their settings.
    """
    if not found.noise or found.locks & {before.lock, after.lock}:
        return found
    try:
        ran = at_commit(commit_of(found.commit), "the seeds")
    except StageError:
        return found._replace(noise={}, caveat=f"`{SEEDS}` does not count, as this clone does not have its commit.")
    fitting = [one for one in (before, after) if not incomparable(ran, one)]
    if not fitting:
        names = [name for one in incomparable(ran, after) for name in one.why]
        return found._replace(
            noise={}, caveat=f"`{SEEDS}` does not count, as it was measured differently: {listed_as_code(names)}."
        )
    others = min((_others(used(ran), used(one)) for one in fitting), key=len)
    return found._replace(caveat=f"The seeds had other settings: {listed_as_code(others)}.") if others else found


def _others(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the settings that differ, except those that change no result and the seed."""
    return [key for key in new if (key not in old or old[key] != new[key]) and not key.startswith(_NO_EFFECT)]


def _compared(base: str, commit: str) -> str:
    (old, old_subject), (new, new_subject) = (git("log", "-1", "--format=%h %s", one).split(" ", 1) for one in (commit, "HEAD"))
    name = code(old) if old == base else f"{code(base)} at {code(old)}"
    return f"Compared: {name} ({prose(old_subject)}) with the workspace at {code(new)} ({prose(new_subject)})."


def _notes(base: str, commit: str) -> list[str]:
    lines = []
    dirty = [line[3:] for line in git("status", "--porcelain", "--untracked-files=no").splitlines()]
    if dirty:
        lines.append(f"Uncommitted changes count, too: {listed_as_code(dirty)}.")
    missing = git("rev-list", "--count", f"HEAD..{commit}")
    if missing != "0" and not is_shallow():
        lines.append(
            f"{code(base)} has commits that HEAD lacks: {missing}. They count as changes here. Merge them first, "
            f"or use `BASE=$(git merge-base {base} HEAD)`."
        )
    return lines


def _other_tables(base: str, commit: str) -> list[str]:
    """Return a line on the tables in plots/ that have other columns in a commit. DVC draws those of the workspace alone."""
    found = []
    for path in sorted(Path("plots").glob("*.csv")):
        old = asked("show", f"{commit}:./{path.as_posix()}")
        with path.open(encoding="utf-8", errors="replace") as file:
            if old is not None and old.partition("\n")[0].strip() != file.readline().strip():
                found.append(path.as_posix())
    return (
        [f"Tables with other columns than in {code(base)}, whose plots may be of the workspace alone: {listed_as_code(found)}."]
        if found
        else []
    )


def _processors() -> list[str]:
    """Return the processors on which stages last ran in this clone."""
    found = set()
    for file in Path("runs/environment").glob("*.json"):
        try:
            found.add(str(json.loads(file.read_text(encoding="utf-8"))["processor"]))
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(found)


def _stale() -> dict[str, list[str]]:
    """Return the stages whose code, settings or files in git are not those of dvc.lock, each with what changed.

    Files that are missing do not count. A clone without the cache has none of the large files.
    """
    stale: dict[str, list[str]] = {}
    for stage, changes in json.loads(_dvc("status", "--json")).items():
        found = [name for change in changes if isinstance(change, dict) for name in _modified(change)]
        found += [change for change in changes if change == "changed command"]
        stale |= {stage: found} if found else {}
    return stale


def _modified(change: dict) -> list[str]:
    """Return the names with the state `modified` or `new` in one entry of `dvc status`. Params are one level deeper."""
    names = []
    for name, state in next(iter(change.values())).items():
        inner = state if isinstance(state, dict) else {name: state}
        names += [key for key, value in inner.items() if value in ("modified", "new")]
    return names


def write_plots(commit: str, page: str) -> None:
    """Write index.html: the page, and the plots of a commit and of the workspace. It needs no network."""
    text = MarkdownIt("commonmark", {"html": True}).enable("table").render(page).replace("{", "&#123;")  # DVC fills in {names}
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.html"
        write_page(template)
        html = template.read_text(encoding="utf-8").replace(
            "{plot_divs}", f'{_STYLE}<div id="review">{text}</div>{{plot_divs}}'
        )
        template.write_text(html, encoding="utf-8")
        (OUT / "index.html").write_text(html.replace("{plot_divs}", ""), encoding="utf-8")  # stays if there are no plots
        _dvc("plots", "diff", commit, "--out", str(OUT), "--html-template", str(template))


def _dvc(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)  # noqa: S603 (no shell)
    if done.returncode:
        raise StageError(f"dvc {arguments[0]}: {first_line(Exception(done.stderr.rpartition('ERROR: ')[2]))}")
    return done.stdout


if __name__ == "__main__":
    main()
