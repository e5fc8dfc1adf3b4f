"""The Python interface. No other subpackage imports it.

config       the settings as one object
pipeline     run the pipeline
comparison   the results side by side
preferences  preference pairs from your files
scoring      train a reward model, and score texts
tuning       train a policy with PPO on any reward
repository   checks of the current folder, of its last run, and of folders to save to
"""

from contextlib import suppress
from pathlib import Path

from ..engine.arithmetic import Arithmetic, pin
from ..engine.errors import ConfigError
from ..engine.params import load

_PARAMS = Path("params.yaml")

# Before the modules of this subpackage load numpy and torch. A wrong file of settings is reported where it is used.
with suppress(ConfigError):
    pin(load(Arithmetic, _PARAMS if _PARAMS.is_file() else Path(__file__).parents[3] / _PARAMS), "settings")
