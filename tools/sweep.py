"""Try settings on the validation prompts, and choose those with the highest judged sentiment at bounded KL.

    python tools/sweep.py sweeps/kl.yaml

A sweep can be stopped or killed at any time. The same command goes on: Optuna's storage in runs/sweeps/NAME has the finished
trials, and a trial that was stopped resumes from its last checkpoint. The page is docs/results/sweeps/NAME.md. The test prompts
are not used.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from pipeline_copy import ROOT, alone, copied, run
from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.messages import Parser, one_line, tell
from rlhf_sentiment.engine.params import read_yaml
from rlhf_sentiment.engine.stopping import listen
from seed_results import numbers
from seeds import duration
from sweep_page import KL, SENTIMENT, write_page, written
from sweep_spec import ON_VALIDATION, Spec, read_spec

NAME = "sweep"
RunTrial = Callable[[int, dict[str, Any]], dict[str, Any]]


def main() -> None:
    """Run the sweep of the command line, and write its page."""
    parser = Parser(prog=f"python tools/{NAME}.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, metavar="FILE", help="such as sweeps/kl.yaml")
    path = parser.parse_args().spec
    listen(NAME)
    with one_line_errors(NAME):
        spec = read_spec(path, (ROOT / "params.yaml").read_text(encoding="utf-8"))
        failed = sweep(ROOT, path, spec)
        if failed:
            raise StageError(f"{failed} of {spec.wanted} trials failed; the same command tries them again")


def sweep(root: Path, file: Path, spec: Spec) -> int:
    """Run the trials of a sweep in a copy of a repository, and write the page. Return how many failed."""
    name = file.stem
    folder = root / "runs/sweeps" / name
    with alone(NAME, folder) as lock:
        study = open_study(folder, name, spec)
        copy = copied(root, folder / "copy", lock)

        def run_trial(number: int, params: dict[str, Any]) -> dict[str, Any]:
            log = folder / f"{number}.log"
            run(copy, params | ON_VALIDATION, f"{name}-{number}", log, lambda stage: say(f"trial {number}: {stage}"))
            return {"commit": copy.commit, "metrics": numbers(copy.folder / "metrics")}

        failed = run_trials(study, spec, run_trial)
        if finished(study):
            say(f"wrote {write_page(root, file, spec, finished(study), read_yaml(copy.folder / 'params.yaml'))}")
    return failed


def open_study(folder: Path, name: str, spec: Spec) -> optuna.Study:
    """Return the study of a sweep from its storage. What a stopped run left unfinished is enqueued again.

    Raises:
        StageError: the storage has another sweep of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name, storage=f"sqlite:///{folder / 'study.db'}", direction="maximize", load_if_exists=True
    )
    values = {key: distribution_to_json(one) for key, one in spec.params.items()}
    defined = json.dumps([values, spec.sampler, spec.seed])
    if study.user_attrs.get("defined", defined) != defined:
        raise StageError(f"runs/sweeps/{name} has trials of another {name}.yaml; rename the file, or delete the folder")
    study.set_user_attr("defined", defined)
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    kept = [_tried(trial) for trial in study.get_trials(states=[TrialState.COMPLETE, TrialState.WAITING])]
    lost = [_tried(trial) for trial in study.get_trials(states=[TrialState.FAIL])]
    for params in spec.combinations if spec.sampler == "grid" else lost:
        if params.keys() == spec.params.keys() and params not in kept:
            study.enqueue_trial(params)
            kept.append(params)
    return study


def _tried(trial: FrozenTrial) -> dict[str, Any]:
    """Return the settings of a trial, also of one that has not begun."""
    return trial.params or trial.system_attrs.get("fixed_params", {})


def run_trials(study: optuna.Study, spec: Spec, run_trial: RunTrial) -> int:
    """Run the trials that are missing, one after another. A trial that fails does not stop the others.

    Args:
        study: the study.
        spec: the sweep.
        run_trial: runs a trial with a number and settings, and returns its metrics and its commit.

    Returns:
        How many trials failed.
    """
    failed = ran = 0
    begun = time.monotonic()
    while (missing := spec.wanted - len(finished(study)) - failed) > 0:
        study.sampler = _sampler(spec, len(finished(study)))
        trial = study.ask(spec.params)
        settings = ", ".join(f"{key}={written(value)}" for key, value in trial.params.items())
        say(f"trial {trial.number}: {settings}; {missing} of {spec.wanted} to do")
        try:
            result = run_trial(trial.number, trial.params)
        except StageError as error:
            study.tell(trial, state=TrialState.FAIL)
            tell(NAME, f"trial {trial.number} failed: {error}")
            failed += 1
            continue
        for key, value in result.items():
            trial.set_user_attr(key, value)
        trial.set_constraint("max_kl", result["metrics"][KL] - spec.max_kl)  # at most 0 within the bound
        ran += 1
        study.tell(trial, result["metrics"][SENTIMENT])
        left = duration((time.monotonic() - begun) / ran * (missing - 1))
        figures = f"P(positive) {result['metrics'][SENTIMENT]:.3f} at {result['metrics'][KL]:.2f} nats of KL"
        say(f"trial {trial.number}: {figures}" + (f"; about {left} left" if missing > 1 else ""))
    return failed


def _sampler(spec: Spec, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a trial. Its seed depends on the number of finished trials, so a stop changes no later trial."""
    if spec.sampler != "tpe":
        return optuna.samplers.RandomSampler(seed=spec.seed + number)
    return optuna.samplers.TPESampler(seed=spec.seed + number, n_startup_trials=min(10, -(-spec.wanted // 3)))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have results."""
    return study.get_trials(states=[TrialState.COMPLETE])


def say(message: str) -> None:
    """Print a line on what happens."""
    print(one_line(f"{NAME}: {message}"), flush=True)


if __name__ == "__main__":
    main()
