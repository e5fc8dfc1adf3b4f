"""Check all of params.yaml before any work: every key, its type, its range, and combinations that cannot work.

The output is always the same, and `prepare` depends on it. A typo in any section is therefore found in two seconds. A correct
change reruns only the stages that load it. For a file with the keys of an old version, it names what each key became.
"""

from rlhf_sentiment.engine.start import begin

WRITES = ["data/checked.json"]

if __name__ == "__main__":
    begun = begin("check", __doc__, (), WRITES)

import os

from rlhf_sentiment.engine.dvc_state import will_run_alone
from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.messages import warn
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.engine.trackers import fault_of
from rlhf_sentiment.settings.whole import Params


def main(params: Params) -> str:
    """Write that the settings are checked, and return the end of the stage's last line.

    Raises:
        ConfigError: a tracker of `report_to` cannot be used.
    """
    faults = [fault_of(name, ask_server=True) for name in params.report_to]
    if any(faults):
        raise ConfigError(*(f"report_to: {fault}" for fault in faults if fault))
    if params.report_to and "DVC_STAGE" in os.environ and will_run_alone("check", WRITES):
        again = "`dvc repro --force --single-item evaluate` reports evaluate again, and `dvc repro --force` all stages"
        warn("check", f"nothing is reported to {', '.join(params.report_to)}, because no other stage is to run; {again}")
    with writing(WRITES[0]) as aside:
        aside.write_text('{"params": "checked"}\n', encoding="utf-8")
    return "params are in order"


if __name__ == "__main__":
    stage(begun, Params, main)
