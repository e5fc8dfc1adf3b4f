"""What each stage imports first, while nothing but the standard library is loaded."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# DVC runs `python`, which is not dvc's own Python where no environment is active.
absent = [name for name in ("portalocker", "psutil", "pydantic", "torch", "trl") if find_spec(name) is None]
if absent:
    made = Path(os.environ.get("DVC_ROOT", "."), ".venv/bin/activate").is_file()
    sys.exit(
        f"{Path(sys.argv[0]).stem}: {sys.executable} has no {absent[0]}; activate the environment that has requirements.txt: "
        + ("source .venv/bin/activate" if made else "`make setup` makes one in .venv")
    )

# Threads that wait for work soon sleep, and leave the processor to others; libgomp itself counts so where threads are more
# than processors (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). It reads this once, when torch loads it.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

from .errors import one_line_errors as one_line_errors  # noqa: E402 (after what they need)
from .stage import stage as stage  # noqa: E402
