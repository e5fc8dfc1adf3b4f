"""What is shown to people: short, on one line, and with nothing that a terminal, Markdown or rich would obey."""

import ast
import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from rich.markdown import Markdown

from rlhf_sentiment.config import ConfigError
from rlhf_sentiment.messages import Parser, cut, escaped, listed, one_line, shown, visible, warn
from rlhf_sentiment.run import StageError, first_line, one_line_errors

from .closure import STAGES

# Colours, a title, the C1 form of both, a bell, line ends of each kind, an overwritten line, text turned round, lone
# surrogates, markup of rich, HTML and Markdown, and a length without end.
HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07 \x9b31m \r\n\x0b\x0c\x85\u2028\u2029 \b\b \u202eright\u2066 \ud800 \x00 "
    "[bold]b[/bold] [/] <b>b</b><script>x</script> | a | `c` **d** # e ![f](g) &#x202E; " + "x" * 5000 + " y" * 5000
)


def tame(text: str, longest: int = 400) -> None:
    """A line that no terminal obeys, and that can be read."""
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


def test_an_object_that_does_not_show_itself_is_named_by_its_kind() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert shown(Broken()).startswith("<Broken instance at ")
    assert shown([[[[[[[[1]]]]]]]]) == "[[[[[[[...]]]]]]]"


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    assert cut("0123456789", 10) == "0123456789"
    assert cut("0123456789x", 10) == "0123...89x"


def test_a_message_keeps_where_it_is_and_what_would_be_right() -> None:
    assert one_line("params.yaml: a\tb\nc") == r"params.yaml: a\tb\nc"
    assert one_line(f"/{'a' * 5000}: no such file") == f"/{'a' * 98}...{'a' * 97}: no such file"
    long = one_line(f"start {'word ' * 1000}end")
    assert (len(long), long[:11], long[-9:]) == (1000, "start word ", " word end")
    assert one_line(one_line(HOSTILE)) == one_line(HOSTILE)


def test_names_are_listed_with_how_many_more() -> None:
    assert listed([]) == ""
    assert listed(["a", 1, None]) == "a, 1, None"
    assert listed(list(range(1000))) == "0, 1, 2, 3, 4, 5, 6, 7, and 992 more"
    assert len(listed(["x" * 500] * 20)) == 8 * 42 + len("and 12 more")


def test_text_is_shown_whole_and_obeyed_by_nothing() -> None:
    assert visible("\x1b[31mred\x07 👩‍💻 שלום\n x") == "�[31mred� 👩‍💻 שלום x"
    assert visible("\x9b31m a\u202eb\u2066c \ue000") == "�31m a�b�c �"
    assert escaped("a\n<b> *c* &lt; ~~d~~") == r"a \<b\> \*c\* \&lt; \~\~d\~\~"


def test_markdown_shows_what_was_written() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor")
    text = "[bold]b[/bold] <b>b</b> | a | `c` **d** # e ![f](g) &lt; \x1b[31m"
    console.print(Markdown(escaped(text)))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().strip() == visible(text)


@pytest.mark.parametrize("error", [StageError, ConfigError])
def test_each_error_is_tame(error: type[Exception]) -> None:
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
        told = capsys.readouterr().err.split("\n")
        assert len(told) == lines + 1
        for line in told[:-1]:
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
    assert line.startswith(r"python stages/sft.py: unrecognized arguments: \x1b[31mred")
    assert line.endswith("(--help says more)")
    tame(line, 1050)


SOURCES = [path for path in sorted(STAGES.rglob("*.py")) if path.name != "messages.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(STAGES).as_posix())
def test_no_message_quotes_or_warns_by_itself(path: Path) -> None:
    """`shown` cuts and escapes, `!r` and `repr` do not; `warn` and `tell` print on one line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}, line {getattr(node, 'lineno', 0)}"
        assert not (isinstance(node, ast.FormattedValue) and node.conversion in (ord("r"), ord("a"))), f"{where}: shown()"
        assert not (isinstance(node, ast.Constant) and ": warning: " in str(node.value)), f"{where}: warn()"
