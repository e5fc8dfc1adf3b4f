"""Run docs/tour.ipynb from top to bottom and save its outputs: `make repro && python tests/record_tour.py`."""

import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def run(path: Path, root: Path) -> nbformat.NotebookNode:
    """Run the notebook at `path` with the package of `root`, and return it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    variables = os.environ | {"PYTHONPATH": str(root / "stages")}
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, resources=where, coalesce_streams=True, record_timing=False).execute(env=variables)
    return notebook


if __name__ == "__main__":
    tour = run(ROOT / "docs/tour.ipynb", ROOT)
    for cell in tour.cells:
        if cell.cell_type == "code":  # progress bars carry no information after the cell has run
            cell.outputs = [
                one for one in cell.outputs if "application/vnd.jupyter.widget-view+json" not in one.get("data", {})
            ]
            for one in cell.outputs:
                if one.get("name") == "stderr":  # a warning names the temporary file of its cell
                    one.text = re.sub(r"\S+/ipykernel_\d+/\d+\.py:\d+: ", "", one.text)
    tour.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(tour, ROOT / "docs/tour.ipynb")
