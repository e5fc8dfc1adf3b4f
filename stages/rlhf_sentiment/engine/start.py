"""The first import of every stage, before any other library is loaded."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# DVC runs `python`. Where no environment is active, this is not the Python that runs dvc.
absent = [name for name in ("portalocker", "psutil", "pydantic", "torch", "trl") if find_spec(name) is None]
if absent:
    made = Path(os.environ.get("DVC_ROOT", "."), ".venv/bin/activate").is_file()
    sys.exit(
        f"{Path(sys.argv[0]).stem}: {sys.executable} has no {absent[0]}; activate the environment of requirements.txt: "
        + ("source .venv/bin/activate" if made else "`make setup` makes one in .venv")
    )

# Let threads that wait for work sleep soon, so that other processes get the processor. libgomp itself uses this value where
# threads outnumber processors (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). It reads the variable once,
# when torch loads it.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

from .command_line import begin as begin
from .errors import one_line_errors as one_line_errors
