"""Write review/: what changed between a revision and the workspace, as a page that is read in a minute, and all plots.

    python tools/review.py main

review/review.md has the verdict, metrics, params, stages and answers. review/index.html has the same text, and the plots of
both revisions as `dvc plots diff` draws them. All of it comes from files in git: it needs no cache, no remote and no network.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from plots_page import write_page
from review_changes import Side, side
from review_figures import seeds
from review_page import Clone, code, listed_as_code, page_of, prose
from rlhf_sentiment.engine.errors import StageError, first_line, one_line_errors
from rlhf_sentiment.engine.messages import Parser, shown

OUT = Path("review")
SEEDS = Path("docs/results/seeds.csv")
FILES = ("params.yaml", "dvc.lock", "requirements.txt", "plots/samples.csv")
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
    parser = Parser(prog="review", description="Compare a revision with the workspace.")
    parser.add_argument("base", metavar="BASE", help="the revision before: a branch, a tag or a commit")
    base = parser.parse_args().base
    with one_line_errors("review"):
        commit = resolved(base)
        short = _git("rev-parse", "--short", commit).strip()
        base = short if commit.startswith(base) else base
        before, after = at_commit(commit, base), in_workspace()
        clone = Clone(base, _compared(base, commit), _notes(base, commit), _stale(), _processors())
        page = page_of(clone, before, after, seeds(_read(SEEDS)))
        OUT.mkdir(exist_ok=True)
        (OUT / "review.md").write_text(page, encoding="utf-8")
        write_plots(short, page)
        print(page.partition("**")[2].partition("**")[0])
        print(f"review: wrote {OUT}/review.md and {OUT}/index.html")


def resolved(base: str) -> str:
    """Return the hash of the commit that `base` names. A branch may also be one of origin, as in a fresh clone.

    Raises:
        StageError: there is no such commit in this clone.
    """
    for name in (base, f"origin/{base}"):
        try:
            return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
        except subprocess.CalledProcessError:
            continue
    if _git_says("rev-parse", "--is-inside-work-tree") is None:
        raise StageError("this folder is not in a git repository; run it in a clone")
    if _git_says("rev-parse", "--is-shallow-repository") == "true":
        raise StageError(
            f"this clone is shallow and lacks {shown(base)}; run `git fetch --unshallow`, or set fetch-depth: 0 in CI"
        )
    raise StageError(f"there is no revision {shown(base)}; name a branch, a tag or a commit, as in `make review BASE=main`")


def at_commit(commit: str, base: str) -> Side:
    """Return what a commit says."""
    names = _git("ls-tree", "-r", "--name-only", commit, "--", "metrics", *FILES).splitlines()
    return side({name: _git("show", f"{commit}:./{name}") for name in names}, base)


def in_workspace() -> Side:
    """Return what the files of this folder say."""
    paths = [*sorted(Path("metrics").glob("*.json")), *map(Path, FILES)]
    return side({path.as_posix(): _read(path) for path in paths if path.is_file()}, "the workspace")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, check=True)  # noqa: S603, S607 (git of the user)
    return done.stdout.decode("utf-8", "replace")


def _git_says(*arguments: str) -> str | None:
    try:
        return _git(*arguments).strip()
    except subprocess.CalledProcessError:
        return None


def _compared(base: str, commit: str) -> str:
    (old, old_subject), (new, new_subject) = (
        _git("log", "-1", "--format=%h %s", one).split(" ", 1) for one in (commit, "HEAD")
    )
    name = code(old) if old == base else f"{code(base)} at {code(old)}"
    return f"Compared: {name} ({prose(old_subject)}) with the workspace at {code(new)} ({prose(new_subject)})."


def _notes(base: str, commit: str) -> list[str]:
    lines = []
    dirty = [line[3:] for line in _git("status", "--porcelain", "--untracked-files=no").splitlines()]
    if dirty:
        lines.append(f"Uncommitted changes count, too: {listed_as_code(dirty)}.")
    missing = _git("rev-list", "--count", f"HEAD..{commit}").strip()
    if missing != "0" and _git_says("rev-parse", "--is-shallow-repository") == "false":
        lines.append(
            f"{code(base)} has commits that HEAD lacks: {missing}. They count as changes here. Merge them first, "
            f"or use `BASE=$(git merge-base {base} HEAD)`."
        )
    return lines


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
    shutil.rmtree(OUT / "static", ignore_errors=True)
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
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607 (as users call it)
    if done.returncode:
        raise StageError(f"dvc {arguments[0]}: {first_line(Exception(done.stderr.rpartition('ERROR: ')[2]))}")
    return done.stdout


if __name__ == "__main__":
    main()
