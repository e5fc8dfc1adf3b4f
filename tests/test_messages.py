"""Text for users is short, on one line, and free of control codes and of markup of Markdown and rich."""

import ast
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import Markdown

from rlhf_sentiment.api.config import RLHFConfig
from rlhf_sentiment.api.repository import require_repository
from rlhf_sentiment.data.card import card, preview
from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.intake import Intake
from rlhf_sentiment.data.prompts import at_least_one, read_prompts, texts
from rlhf_sentiment.data.tables import Tables
from rlhf_sentiment.engine.errors import ConfigError, StageError, first_line, one_line_errors
from rlhf_sentiment.engine.messages import Parser, cut, escaped, listed, one_line, shown, visible, warn
from rlhf_sentiment.engine.params import load
from rlhf_sentiment.engine.records import read_rows
from rlhf_sentiment.evaluation import report
from rlhf_sentiment.evaluation.contestants import CONTESTANTS
from rlhf_sentiment.settings.whole import Params

from .closure import STAGES
from .conftest import assert_names, tiny_params
from .test_statistics import result

# Colours, a title, the C1 form of both, a bell, all kinds of line ends, an overwritten line, reversed text, lone
# surrogates, markup of rich, HTML and Markdown, and very long words.
HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \x9b31m \r\n\x0b\x0c\x85\u2028\u2029 \b\b \u202eright\u2066 \ud800 \x00 "
    "[bold]b[/bold] [/] <b>b</b><script>x</script> | a | `c` **d** # e ![f](g) &#x202E; " + "x" * 5000 + " y" * 5000
)


def tame(text: str, longest: int = 400) -> None:
    """Assert that a text is one readable line without control characters."""
    assert text.isprintable(), ascii(text)
    assert len(text) <= longest


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "'plain'"),
        ("one\ntwo\x1b[0m\u202e\x9b", r"'one\ntwo\x1b[0m\u202e\x9b'"),
        ("x" * 81, f"'{'x' * 37}...{'x' * 38}'"),
        ([1, "a", None], "[1, 'a', None]"),
        ({"key": "x" * 200}, f"{{'key': '{'x' * 30}...{'x' * 36}'}}"),
        (10**5000, "<int>"),
        (pd.DataFrame({"a": [1]}), r"   a\n0  1"),
    ],
    ids=["text", "escapes", "long", "list", "keys", "number", "table"],
)
def test_a_value_is_quoted_short(value: object, text: str) -> None:
    assert shown(value) == text
    assert len(text) <= 80


def test_an_object_whose_repr_fails_is_shown_by_its_type() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert shown(Broken()).startswith("<Broken instance at ")
    assert shown([[[[[[[[1]]]]]]]]) == "[[[[[[[...]]]]]]]"


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    assert cut("0123456789", 10) == "0123456789"
    assert cut("0123456789x", 10) == "0123...89x"


def test_a_message_becomes_one_line_that_keeps_its_start_and_its_end() -> None:
    assert one_line("params.yaml: a\tb\nc") == r"params.yaml: a\tb\nc"
    assert one_line(f"/{'a' * 5000}: no such file") == f"/{'a' * 98}...{'a' * 97}: no such file"
    long = one_line(f"start {'word ' * 1000}end")
    assert (len(long), long[:11], long[-9:]) == (1000, "start word ", " word end")
    assert one_line(one_line(HOSTILE)) == one_line(HOSTILE)


def test_listed_names_end_with_the_number_of_the_others() -> None:
    assert listed([]) == ""
    assert listed(["a", 1, None]) == "a, 1, None"
    assert listed(list(range(1000))) == "0, 1, 2, 3, 4, 5, 6, 7, and 992 more"
    assert len(listed(["x" * 500] * 20)) == 8 * 32 + len("and 12 more")


def test_visible_and_escaped_text_controls_no_terminal_and_no_markdown() -> None:
    assert visible("\x1b[31mred\x07 👩‍💻 שלום\n x") == "�[31mred� 👩‍💻 שלום x"
    assert visible("\x9b31m a\u202eb\u2066c \ue000") == "�31m a�b�c �"
    assert escaped("a\n<b> *c* &lt; ~~d~~") == r"a \<b\> \*c\* \&lt; \~\~d\~\~"


def test_markdown_renders_escaped_text_as_it_was_written() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor")
    text = "[bold]b[/bold] <b>b</b> | a | `c` **d** # e ![f](g) &lt; \x1b[31m"
    console.print(Markdown(escaped(text)))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip() == visible(text)


@pytest.mark.parametrize("error", [StageError, ConfigError])
def test_each_error_is_one_printable_line(error: type[Exception]) -> None:
    tame(str(error(f"{shown(HOSTILE)} {listed([HOSTILE])}")))
    tame(str(error(HOSTILE)), 1000)
    assert len(first_line(ValueError("x" * 5000))) == 300


def test_errors_and_warnings_are_printed_on_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    for error, status, lines in (
        (ConfigError(HOSTILE, HOSTILE), 2, 2),
        (StageError(HOSTILE), 1, 1),
        (FileNotFoundError(2, HOSTILE, HOSTILE), 1, 1),
    ):
        with pytest.raises(SystemExit) as stopped, one_line_errors("sft"):
            raise error
        assert stopped.value.code == status
        lines_shown = capsys.readouterr().err.split("\n")
        assert len(lines_shown) == lines + 1
        for line in lines_shown[:-1]:
            assert line.startswith("sft: ")
            tame(line, 1005)
    warn("sft", HOSTILE)
    tame(capsys.readouterr().err.removesuffix("\n"), 1005)


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="python stages/sft.py")
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([HOSTILE])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.startswith("python stages/sft.py: ")
    assert_names(line, r"\x1b[31mred", "--help")
    tame(line, 1050)


SOURCES = [path for path in sorted(STAGES.rglob("*.py")) if path.name != "messages.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(STAGES).as_posix())
def test_messages_are_quoted_by_shown_and_printed_by_warn(path: Path) -> None:
    """`shown` truncates and escapes text, but `!r` and `repr` do not. `warn` and `tell` print one line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}, line {getattr(node, 'lineno', 0)}"
        assert not (isinstance(node, ast.FormattedValue) and node.conversion in (ord("r"), ord("a"))), f"{where}: shown()"
        assert not (isinstance(node, ast.Constant) and ": warning: " in str(node.value)), f"{where}: warn()"


# For each kind of user input, an error that quotes this input. `SHORT` is a valid file name.
SHORT = "\x1b[31m\u202e\x9b1m[bold]<b>|`c`" * 4


def labelled(folder: Path, *rows: dict[str, object], name: str = "train.jsonl") -> Intake:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Params.model_validate(tiny_params()).data
    return Intake(files_at(str(path), "data.source"), ("labelled",), data, "data.source", 4, 0.5)


def from_settings(folder: Path, text: str) -> None:
    (folder / "params.yaml").write_text(text)
    load(Params, folder / "params.yaml", whole=True)


def changed_settings(key: str, value: object) -> RLHFConfig:
    return RLHFConfig(**{key: value})


QUOTING: dict[str, Callable[[Path], object]] = {
    "a value of settings": lambda folder: changed_settings("device", HOSTILE),
    "a key of settings": lambda folder: changed_settings(HOSTILE, 1),
    "a key below a value": lambda folder: changed_settings(f"seed.{HOSTILE}", 1),
    "a key of a section": lambda folder: changed_settings("ppo", {HOSTILE: 1}),
    "a section": lambda folder: changed_settings("ppo", HOSTILE),
    "a number": lambda folder: changed_settings("seed", 10**5000),
    "a source": lambda folder: changed_settings("data.source", f"data/raw/{HOSTILE}"),
    "a hub id": lambda folder: changed_settings("data.hub.dataset", f"a/{HOSTILE}"),
    "a long hub id": lambda folder: changed_settings("base.model", f"a/{'b' * 5000}"),
    "a judge": lambda folder: changed_settings("evaluate.judges", ["classifier", HOSTILE]),
    "judges": lambda folder: changed_settings("evaluate.judges", ["classifier", *["lexicon"] * 5000]),
    "labels": lambda folder: changed_settings("data.labels", {"negative": [HOSTILE], "positive": [HOSTILE]}),
    "a column": lambda folder: changed_settings("data.columns", {HOSTILE: "x"}),
    "a file of prompts": lambda folder: changed_settings("evaluate.prompts_file", f"prompts/{'x' * 5000}.txt"),
    "a file of settings": lambda folder: RLHFConfig.from_file(HOSTILE.replace("\0", "")),
    "no file of settings": lambda folder: RLHFConfig.from_file([HOSTILE]),  # type: ignore[arg-type]
    "a tag in YAML": lambda folder: from_settings(folder, f"a: !{'x%0A%1B' * 1000} 1"),
    "a text in YAML": lambda folder: from_settings(folder, f"a: !!int '{'x ' * 5000}\u202e'"),
    "a key in YAML": lambda folder: from_settings(folder, f'"{"x" * 900}\\u202e\\n": 1\n' * 2),
    "an alias in YAML": lambda folder: from_settings(folder, f"a: *{'x' * 5000}"),
    "columns of a file": lambda folder: labelled(folder, {f"{number}{HOSTILE}": 1 for number in range(100)}),
    "a label of a file": lambda folder: labelled(folder, {"text": "a b c d e f", "label": HOSTILE}),
    "a text of a file": lambda folder: labelled(folder, {"text": [HOSTILE], "label": 1}),
    "the name of a file": lambda folder: labelled(folder, {"a": 1}, name=f"{SHORT}.jsonl"),
    "the name of no file": lambda folder: files_at(SHORT, "data.source"),
    "prompts": lambda folder: read_prompts(HOSTILE),
    "a key of rows": lambda folder: read_rows(written(folder, json.dumps({HOSTILE: 1})), {"text": str}),
    "a value of rows": lambda folder: read_rows(written(folder, json.dumps({"text": [HOSTILE]})), {"text": str}),
    "a prompt that is not UTF-8": lambda folder: read_prompts(written(folder, json.dumps({"prompt": HOSTILE}))),
    "no config": lambda folder: require_repository(HOSTILE),
    "no prompts": lambda folder: texts(HOSTILE, "prompts"),
    "no number": lambda folder: at_least_one(HOSTILE),
}


def written(folder: Path, text: str) -> Path:
    (folder / "rows.jsonl").write_text(text)
    return folder / "rows.jsonl"


@pytest.mark.parametrize("name", QUOTING)
def test_an_error_that_quotes_hostile_input_is_short_and_printable(name: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, StageError)) as error:
        QUOTING[name](tmp_path)
    lines = str(error.value).split("\n")
    assert len(lines) <= (21 if "YAML" in name else 1)
    for line in lines:
        tame(line, 1000 if name in ("a file of settings", "prompts") else 500)  # a path with spaces is truncated with the line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--params", HOSTILE.replace("\0", "").replace("\ud800", "")],
        ["--prompts", HOSTILE.replace("\0", "")],
        ["--csv", HOSTILE.replace("\0", "")],
        ["--csv", "/dev/null"],
        ["--prompt", HOSTILE],
        ["--samples", HOSTILE],
        ["--samples", "1" * 5000],
        ["--samples", "1001"],
        ["--samples", "0"],
        [HOSTILE],
    ],
    ids=["params", "prompts", "csv", "device", "prompt", "samples", "digits", "many", "none", "unknown"],
)
def test_compare_reports_a_wrong_command_line_in_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import compare

    monkeypatch.setattr("sys.argv", ["compare.py", *arguments, "--prompt", "The film was"])
    monkeypatch.setattr("compare.listen", lambda name: None)  # pytest keeps its signal handlers
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as stopped:
        compare.main(compare.command_line())
    assert stopped.value.code == (1 if arguments[0] == "--prompts" else 2)
    tame(capsys.readouterr().err.removesuffix("\n"), 1050 if arguments[0] in ("--params", "--prompts") else 410)


def test_hostile_text_has_no_effect_in_the_report_the_card_and_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import compare

    data = Params.model_validate(tiny_params()).data.model_copy(update={"preferred_for": HOSTILE, "licence": HOSTILE})
    rows = [{"prompt": HOSTILE, "chosen": HOSTILE, "rejected": HOSTILE, "split": "train"}]
    tables: Tables = {"preferences": rows, "labelled": [{"text": f"line\n{HOSTILE}", "label": 1, "split": "test"}]}
    figures = {
        "pairs": {"flipped": 0}, "source": HOSTILE, "shape": "labelled", "preferred_for": HOSTILE, "judge_source": HOSTILE,
        "files": {HOSTILE: {"read": 1, "kept": 1, "rejected": 0, "duplicates": 0, "overlaps": 0}},
        "splits": {"preferences": {"train": 1}}, "dropped": {"preferences": 0},
    }  # fmt: skip
    models = dict.fromkeys(CONTESTANTS, HOSTILE)
    scores = {f"{model}_positive": 0.5 for model in CONTESTANTS}
    listed_answers = report.markdown(result(0.1, 0.3), [], [{"prompt": HOSTILE} | models | scores], 0.95, HOSTILE)
    for text in (card(tables, figures, data), listed_answers):
        for line in text.split("\n"):
            assert line.isprintable()
        html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
        for tag in ("<b>", "<script", "<code", "<img", "<a ", "<em>", "<s>"):
            assert tag not in html.lower()
        assert "[bold]b[/bold]" in html

    preview(tables, 1)
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    text = HOSTILE.replace("\ud800", "")  # no tokenizer accepts or returns a lone surrogate
    compare.show(console, text, pd.DataFrame([{"model": model, "positive": 0.5, "response": text} for model in CONTESTANTS]))
    assert isinstance(console.file, io.StringIO)
    for shown_text in (capsys.readouterr().out, console.file.getvalue()):
        for line in shown_text.split("\n"):
            assert line.isprintable()
    assert "[bold]b[/bold]" in console.file.getvalue()
