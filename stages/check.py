"""Check all of params.yaml before any work: every key, its type, its range, and combinations that cannot work.

The output is always the same, and `prepare` depends on it. A typo in any section is therefore found in two seconds. A correct
change reruns only the stages that load it. For a file with the keys of an old version, it names what each key became.
"""

from rlhf_sentiment.engine.start import stage  # isort: split

from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.settings.whole import Params

WRITES = ["data/checked.json"]


def main(_: Params) -> str:
    """Write that the settings are checked, and return the end of the stage's last line."""
    with writing(WRITES[0]) as aside:
        aside.write_text('{"params": "checked"}\n', encoding="utf-8")
    return "params are in order"


if __name__ == "__main__":
    stage("check", __doc__, Params, main, (), WRITES)
