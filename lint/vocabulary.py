"""Report the words of lint/vocabulary.yaml in text that people read, with what to write in their place.

    python lint/vocabulary.py FILE ...

- Python files: comments and docstrings. Below stages/, also string literals with a space, which are messages.
- Markdown: everything but fenced and indented code.
- Every file: text in back quotes is skipped.

The exit status is 1 if a word was found.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

import yaml

PHRASES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
# A phrase stands alone: it is not part of a path, a file name or a compound.
WORDS = {
    re.compile(r"(?<![\w/.-])(?:" + phrase.replace(" ", r"\s+") + r")(?![\w/-]|\.\w)", re.IGNORECASE): better
    for phrase, better in PHRASES.items()
}
QUOTED = re.compile(r"`[^`]*`")
# The literals of this module are the synthetic corpus, not messages.
CORPUS = "grammar.py"
MARKDOWN_CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$", re.MULTILINE | re.DOTALL)


def without(pattern: re.Pattern[str], text: str) -> str:
    """Remove the matches of `pattern`, but keep their line breaks, so that line numbers stay right."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def docstrings_of(tree: ast.AST) -> set[ast.expr]:
    """Return the docstrings of a module, its classes and its functions."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    first = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    return {statement.value for statement in first if isinstance(statement, ast.Expr)}


def comments_and_docstrings(source: str) -> str:
    """Return the comments and the docstrings of a Python file, each on its own line."""
    docstrings = {(node.lineno, node.col_offset) for node in docstrings_of(ast.parse(source))}
    lines = [""] * (source.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.start in docstrings):
            for number, line in enumerate(token.string.split("\n"), token.start[0] - 1):
                lines[number] = line.lstrip("# ")
    return "\n".join(lines)


def messages(source: str) -> str:
    """Return the string literals of a Python file that have a space, each on its first line. A field of an f-string is `{}`."""
    tree = ast.parse(source)
    templates = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    others = docstrings_of(tree) | {part for template in templates for part in template.values}
    lines = [""] * (source.count("\n") + 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in others:
            text = node.value
        else:
            continue
        if " " in text.strip():
            lines[node.lineno - 1] += QUOTED.sub("", text).replace("\n", " ") + "; "
    return "\n".join(lines)


def prose(file: Path) -> str:
    """Return what people read in a file. Line n of the result is line n of the file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        text = comments_and_docstrings(text)
    elif file.suffix == ".md":
        text = without(MARKDOWN_CODE, text)
    else:
        text = text.replace("#", " ")
    return without(QUOTED, text)


def main() -> None:
    """Print one line for each word that was found."""
    found = []
    for name in sys.argv[1:]:
        file = Path(name)
        has_messages = file.suffix == ".py" and "stages" in file.parts and file.name != CORPUS
        for text in [prose(file), messages(file.read_text(encoding="utf-8")) if has_messages else ""]:
            for pattern, better in WORDS.items():
                for match in pattern.finditer(text):
                    line = text.count("\n", 0, match.start()) + 1
                    found.append((name, line, f"`{' '.join(match[0].split())}`; write: {better}"))
    for name, line, advice in sorted(found):
        print(f"{name}:{line}: {advice}")
    sys.exit(len(found) > 0)


if __name__ == "__main__":
    main()
