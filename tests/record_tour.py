"""Run docs/tour.ipynb from top to bottom and keep its outputs: `python tests/record_tour.py`, after `make repro`."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def run(path: Path, root: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, as a person at `root` would see them.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    variables = os.environ | {"PYTHONPATH": str(root / "stages"), "TQDM_DISABLE": "1"}  # bars are for people who wait
    client = NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}, record_timing=False
    )
    client.execute(env=variables)
    return notebook


if __name__ == "__main__":
    tour = run(ROOT / "docs/tour.ipynb", ROOT)
    tour.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(tour, ROOT / "docs/tour.ipynb")
    sys.exit(0)
