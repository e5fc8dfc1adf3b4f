"""The Python API: the examples of the README, docs/python.md and the docstrings work unchanged in the tiny world."""

import copy
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

import rlhf_sentiment
from rlhf_sentiment.api.config import RLHFConfig, write_params
from rlhf_sentiment.api.preferences import PreferenceDataProcessor
from rlhf_sentiment.api.repository import note_run, warn_of_other_settings
from rlhf_sentiment.api.scoring import RewardModel
from rlhf_sentiment.api.tuning import warn_if_constant
from rlhf_sentiment.engine.dvc_state import Recorded
from rlhf_sentiment.engine.errors import ConfigError, StageError
from rlhf_sentiment.engine.params import read_yaml
from rlhf_sentiment.rewards import Reward

from .closure import ROOT
from .conftest import World, assert_names, outs, write_reviews
from .record_tour import run

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
IMPORTS = "from rlhf_sentiment import *\n"


def python(world: World, program: str, status: int = 0) -> str:
    """Run a program in the world's folder, against the world's own package."""
    (world / "program.py").write_text(program)
    return World(world.folder, {"PYTHONPATH": str(world / "stages")}).run("python", "program.py", status=status)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a program in this process, in the folder of a world.

    The function returns the output that a notebook would show: printed text and warnings. With `fails`, the program must fail,
    and the last line of the traceback is added.
    """

    def run(world: World, program: str, fails: bool = False) -> str:
        capsys.readouterr()
        error = ""
        with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            patched.chdir(world.folder)
            try:
                exec(program, {"__name__": "__main__"})  # noqa: S102 (our own)
            except (ConfigError, StageError) as failed:
                error = f"{type(failed).__name__}: {failed}\n"
        assert bool(error) == fails, error
        said = "".join(capsys.readouterr())
        return said + "".join(f"{one.category.__name__}: {one.message}\n" for one in warned) + error

    return run


def smaller(program: str) -> str:
    """Return the program with few PPO steps."""
    return re.sub(r'"ppo.steps": \d+', '"ppo.steps": 3', program)


def test_the_guide_runs_from_top_to_bottom(world: World) -> None:
    blocks = BLOCK.findall((ROOT / "docs/python.md").read_text())
    assert len(blocks) >= 5
    said = python(world, smaller("\n".join(blocks)))
    assert "params.yaml: ppo.steps: 2 becomes 3" in said
    assert "Stage 'reward' didn't change, skipping" in said
    assert yaml.safe_load((world / "params.yaml").read_text())["ppo"]["steps"] == 3
    assert "mean_positive" in said


def test_the_readme_runs_as_it_stands(world: World) -> None:
    (world / "path/to").mkdir(parents=True)
    rows = [json.loads(line) for line in (world / "data/prepared/preferences.jsonl").read_text().splitlines()]
    (world / "path/to/data.json").write_text(
        json.dumps([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows])
    )
    (block,) = BLOCK.findall(README)
    said = python(world, smaller(block))
    assert f"path/to/data.json: {len(rows)} rows" in said


def test_every_public_name_has_an_example_that_runs(world: World, notebook: Callable[..., str]) -> None:
    first = ["RLHFConfig", "run_complete_pipeline", "run_evaluation", "PreferenceDataProcessor"]  # others need their results
    names = [*first, *(name for name in rlhf_sentiment.__all__ if name not in first)]
    program = f"""
import doctest, rlhf_sentiment
finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
known = {{name: getattr(rlhf_sentiment, name) for name in rlhf_sentiment.__all__}}
for name in {names}:
    tests = finder.find(known[name], name)
    assert any(test.examples for test in tests), name
    for test in tests:
        test.globs = known
        runner.run(test, clear_globs=False)
print(doctest.TestResults(*runner.summarize()))
"""
    said = notebook(world, program)
    assert "TestResults(failed=0, " in said, said


def test_what_the_last_run_had_is_what_is_compared(world: World, notebook: Callable[..., str]) -> None:
    said = notebook(world, IMPORTS + 'print(run_evaluation(RLHFConfig(**{"ppo.steps": 9})))')
    assert_names(said, "UserWarning: ", "ppo.steps 2", "not 9", "run_complete_pipeline")
    assert "mean_positive" in said
    figures = notebook(
        world, IMPORTS + "import json; print(json.dumps(run_evaluation(RLHFConfig(report_to='tensorboard')).figures))"
    )
    assert json.loads(figures) == json.loads((world / "reports/evaluation.json").read_text())
    program = "train_ppo(RLHFConfig(**{'sft.epochs': 9, 'ppo.steps': 1}), lambda prompts, texts: [len(text) for text in texts])"
    said = notebook(world, IMPORTS + program)
    assert_names(said, "UserWarning: ", "sft.epochs 1", "not 9.0")
    assert said.count("UserWarning") == 1, "its own settings, ppo.steps among them, are to be tried"
    lock = world / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole.replace("generation:", "generator:"))
    said = notebook(world, IMPORTS + "run_evaluation(RLHFConfig())")
    assert_names(said, "UserWarning: ", "generator {")
    lock.write_text("<<<<<<< HEAD\n" + whole)
    said = notebook(world, IMPORTS + "run_evaluation(RLHFConfig())", fails=True)
    assert_names(said.splitlines()[-1], "StageError: ", "dvc.lock", "`make repro`")
    lock.write_text(whole)
    world.set("ppo.steps", 3)
    world.run("dvc", "repro", "ppo")
    said = notebook(world, IMPORTS + "run_evaluation(RLHFConfig())", fails=True)
    assert_names(said.splitlines()[-1], "StageError: ", "last run", "run_complete_pipeline")


@pytest.mark.parametrize(
    ("program", "parts"),
    [
        ("run_complete_pipeline(RLHFConfig())", ("StageError", "dvc.yaml, .dvc, stages/ppo.py missing", "os.chdir")),
        ("run_evaluation(RLHFConfig())", ("StageError", "dvc.yaml", "os.chdir")),
        ("RewardModel(RLHFConfig()).score(['x'])", ("StageError", "dvc.yaml", "os.chdir")),
        ("train_ppo(RLHFConfig(), print)", ("StageError", "dvc.yaml", "os.chdir")),
        ("PreferenceDataProcessor(RLHFConfig()).load_custom_data('no.json')", ("StageError", "no.json", "path")),
        ("RLHFConfig.from_file('no.yaml')", ("ConfigError", "no.yaml")),
        ("RLHFConfig(**{'seed.x': 1})", ("ConfigError", "seed.x")),
        ("RLHFConfig(ppo=3)", ("ConfigError", "ppo")),
    ],
)
def test_elsewhere_it_says_what_it_needs(
    tmp_path: Path, notebook: Callable[..., str], program: str, parts: tuple[str, ...]
) -> None:
    assert_names(notebook(World(tmp_path), IMPORTS + program, fails=True).splitlines()[-1], *parts)
    assert list(tmp_path.iterdir()) == []


def test_num_steps_gives_no_warning_of_the_steps_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    config = RLHFConfig()
    run = config.changed(**{"ppo.steps": 50})
    last = {"ppo": Recorded({}, {}, {"ppo": run.model_dump(mode="json")["ppo"]})}
    monkeypatch.setattr("rlhf_sentiment.api.repository.recorded", lambda: last)
    monkeypatch.setattr("rlhf_sentiment.api.repository._asked", [])
    warn_of_other_settings(config)
    assert_names(recwarn.pop(UserWarning).message, "ppo.steps 50", str(config.ppo.steps))
    note_run(config, run)
    warn_of_other_settings(config)
    assert not recwarn.list
    warn_of_other_settings(config.changed(**{"ppo.steps": 9}))
    assert_names(recwarn.pop(UserWarning).message, "ppo.steps 50", "9")


def test_messages_about_a_file_have_the_words_of_the_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    processor, file = PreferenceDataProcessor(RLHFConfig()), tmp_path / "a.json"
    wrong = {"missing.json": None, "a.json": [{"foo": 1}], "*.csv": None}
    for name, rows in wrong.items():
        if rows:
            file.write_text(json.dumps(rows))
        with pytest.raises(StageError) as error:
            processor.load_custom_data(tmp_path / name)
        assert_names(error.value, name, "path ")
        assert "data.source" not in str(error.value)
    file.write_text(json.dumps([{"text": f"a text of seven or more words {k}", "label": "meh"} for k in range(9)]))
    with pytest.raises(StageError) as error:
        processor.load_custom_data(file)
    assert_names(error.value, str(file), "'meh'", "data.labels")
    assert "data.source" not in str(error.value)


def test_few_pairs_give_a_warning(tmp_path: Path) -> None:
    """The sides have other usual names, and the file is one object."""
    file, processor = tmp_path / "pairs.json", PreferenceDataProcessor(RLHFConfig())
    for count in (5, 100):
        rows = [
            {"prompt": f"Film {k} was", "positive": f" fine {k * 'x'}", "negative": f" dull {k * 'y'}"} for k in range(count)
        ]
        file.write_text(json.dumps({"data": rows}, indent=1))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            assert len(processor.load_custom_data(file)) == count
        assert [str(one.message).split()[:2] for one in warned] == ([["5", "pairs"]] if count == 5 else [])


def test_a_constant_reward_gives_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    batch: Any = None
    for rewards in ([3.0, 3.0], [3.0, 4.0]):
        reward = Reward(lambda _, rewards=rewards: torch.tensor(rewards))  # type: ignore[misc]
        warn_if_constant(reward, 4)
        for _ in range(3):
            reward.score(batch)
    warned = recwarn.pop(UserWarning)
    assert_names(warned.message, "3 ", "first 4 responses")
    assert warned.filename == __file__, "the line of the caller"
    assert not recwarn.list, "once, and not for rewards that differ"


def test_a_probability_is_that_of_bradley_and_terry(
    tiny_model: Callable[..., Any], letters: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = RewardModel(RLHFConfig())
    model._loaded = tiny_model("reward"), letters
    one, other, prompts = ["a good film", "so so"], ["a bad film", "dull"], ["i saw ", "it was "]
    first, second = (torch.tensor(model.score(texts, prompts)) for texts in (one, other))
    assert model.probability(one, over=other, prompts=prompts) == pytest.approx(torch.sigmoid(first - second).tolist())
    assert model.probability(one, over=one) == [0.5, 0.5]
    with pytest.raises(StageError) as error:
        model.probability(one)
    assert_names(error.value, "data/samples/sft.jsonl")
    with pytest.raises(StageError) as error:
        model.probability(one, over=other[:1])
    assert_names(error.value, "1 over", "2 responses")
    rows = [{"prompt": prompt, "response": text} for prompt, text in zip(prompts, other, strict=True)]
    (tmp_path / "data/samples").mkdir(parents=True)
    (tmp_path / "data/samples/sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    against_mean = torch.sigmoid(first - second.mean()).tolist()
    assert model.probability(one, prompts=prompts) == pytest.approx(against_mean, rel=1e-5)


def test_settings_are_written_where_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))):
        path = tmp_path / file.name
        path.write_text(file.read_text())
        changes = {
            "ppo.learning_rate": 2e-5,
            "evaluate.judges": ["classifier"],
            "data.columns": {"text": "x"},
            "ppo.kl_stop": None,
        }
        config = RLHFConfig.from_file(file, **changes)
        write_params(config, path)
        assert RLHFConfig.from_file(path) == config
        before, after = file.read_text().splitlines(), path.read_text().splitlines()
        gone, new = ([line.strip() for line in a if line not in b] for a, b in ((before, after), (after, before)))
        assert [line for line in gone if "rate" not in line] == ["columns: {}", "kl_stop: 30.0", "- lexicon", "- reward"]
        assert new == ["columns:", "text: x", "learning_rate: 2e-05", "kl_stop:"]
        assert "ppo.kl_stop: 30.0 becomes None" in capsys.readouterr().out
        path.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
        write_params(config, path)
        assert path.read_bytes().count(b"\r\n") == path.read_bytes().count(b"\n") == len(after)
        capsys.readouterr()
        stamp = path.stat().st_mtime_ns
        write_params(config, path)
        assert path.stat().st_mtime_ns == stamp


def test_a_config_is_checked_and_frozen() -> None:
    config = RLHFConfig(seed=7)
    assert config.seed == 7
    assert config.changed(**{"ppo.steps": 5}).ppo.steps == 5
    assert config.ppo.steps == read_yaml(ROOT / "params.yaml")["ppo"]["steps"]
    with pytest.raises(ConfigError, match=r"ppo\.steps: .*1 .*got 0"):
        config.changed(**{"ppo.steps": 0})
    with pytest.raises(ConfigError, match=r"seed: .*frozen"):
        config.seed = 8
    with pytest.raises(ConfigError, match=r"steps: .*frozen"):
        config.ppo.steps = 8
    assert RLHFConfig(ppo={"steps": 9}).ppo == config.changed(**{"ppo.steps": 9}).ppo
    assert RLHFConfig(ppo=config.ppo, **{"ppo.steps": np.arange(9, 99)[0]}).ppo == config.changed(**{"ppo.steps": 9}).ppo
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config  # noqa: S301 (our own)
    with pytest.raises(ConfigError, match=r"evaluate\.num_samples .*601"):
        RLHFConfig(**{"evaluate.num_samples": 601})


def test_ppo_learns_what_a_function_rewards(world: World, notebook: Callable[..., str]) -> None:
    program = """
from rlhf_sentiment import RLHFConfig, train_ppo

def brief(prompts, responses):
    assert len(prompts) == len(responses) and all(prompts)
    return [-len(response.split()) for response in responses]

changes = {"ppo.steps": 25, "ppo.batch_size": 32, "ppo.micro_batch_size": 32, "ppo.kl_coef": 0.0, "ppo.learning_rate": 1e-2}
for critic in ("separate", "shared"):
    tuned = train_ppo(RLHFConfig(**changes, **{"ppo.critic": critic}), brief)
    before, after = tuned.validation["score"].iloc[[0, -1]]
    print(before, after)
    assert after > before / 2, (before, after)
tuned.save("mine")
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained("mine")
try:
    tuned.save("models/ppo")
except Exception as error:
    print(error)
"""
    before = (world / "models/ppo/model.safetensors").read_bytes()
    assert_names(notebook(world, program), "models/ppo belongs to", "another folder")
    assert (world / "models/ppo/model.safetensors").read_bytes() == before


def test_a_reward_model_of_labelled_texts(world: World, notebook: Callable[..., str]) -> None:
    """Texts become pairs and then a reward model for PPO. The test split is not used."""
    write_reviews(world / "elsewhere/reviews", 400, 40)
    program = (
        IMPORTS
        + """
config = RLHFConfig(**{"reward.max_length": 160, "reward.epochs": 2})
dataset = PreferenceDataProcessor(config).load_custom_data("elsewhere/reviews")
print(sorted(set(dataset["split"])))
model = RewardModel(config)
metrics = model.train_reward_model(dataset)
print(metrics["pairs"] + metrics["pairs_held_out"] + metrics["pairs_too_long"], sum(s != "test" for s in dataset["split"]))
tuned = train_ppo(config, model)
print(len(tuned.curve), len(model.curve) > 0)
texts = ["I loved it.", "It was dull, and long."]
together, alone = model.score(texts), [model.score([text])[0] for text in texts]
assert max(abs(a - b) for a, b in zip(together, alone)) < 1e-5, "padding moves a score"
"""
    )
    said = notebook(world, program)
    assert "['test', 'train', 'validation']" in said
    train, used = re.findall(r"^(\d+) (\d+)$", said, re.MULTILINE)[0]
    assert train == used


def test_a_stopped_cell_writes_a_checkpoint(world: World) -> None:
    """Only this Python process gets SIGINT, as from some notebook programs."""
    world.set("ppo.steps", 200)
    (world / "program.py").write_text(IMPORTS + "run_complete_pipeline(RLHFConfig())")
    variables = world.environment() | {"PYTHONPATH": str(world / "stages")}
    with open(world / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "program.py"], cwd=world.folder, env=variables, stdout=log, stderr=log)
    while world.newest("ppo") < 2:
        assert process.poll() is None, (world / "log").read_text()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=120)
    said = (world / "log").read_text()
    assert "ppo: SIGINT: " in said
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert world.newest("ppo") >= 2


def test_it_waits_for_no_dvc_that_is_at_work(world: World) -> None:
    """Otherwise DVC would record the new params.yaml for results of the old one."""
    world.set("ppo.steps", 20)
    before = (world / "params.yaml").read_bytes()
    dvc = subprocess.Popen(["dvc", "repro"], cwd=world.folder, env=world.environment(), stdout=subprocess.DEVNULL)
    while world.newest("ppo") < 1:
        assert dvc.poll() is None
        time.sleep(0.01)
    (stage,) = [one for one in psutil.Process(dvc.pid).children(recursive=True) if "stages/ppo.py" in one.cmdline()]
    stage.suspend()
    said = python(world, IMPORTS + "run_complete_pipeline(RLHFConfig(), num_steps=3)", status=1)
    assert_names(said.splitlines()[-1], "StageError: ", f"process {dvc.pid} ", "dvc")
    assert (world / "params.yaml").read_bytes() == before
    world.set("ppo.kl_coef", 0.7)  # by hand
    stage.resume()
    assert dvc.wait() != 0
    assert yaml.safe_load((world / "dvc.lock").read_text())["stages"]["ppo"]["params"]["params.yaml"]["ppo"]["steps"] == 2
    (world / "params.yaml").write_bytes(before)
    assert re.search(r"^ppo: .*checkpoint of step 20$", world.run("dvc", "repro", "ppo"), re.MULTILINE)


def test_a_stage_that_fails_is_quoted(world: World, notebook: Callable[..., str]) -> None:
    said = notebook(world, IMPORTS + "run_complete_pipeline(RLHFConfig(**{'data.source': 'data/raw/nothing'}))", fails=True)
    assert_names(said.splitlines()[-1], "StageError: ", "`dvc repro`", "prepare: data/raw/nothing ")


def test_a_model_is_saved_over_nothing_else(world: World, notebook: Callable[..., str]) -> None:
    program = (
        IMPORTS
        + """
from pathlib import Path
model = RewardModel(RLHFConfig())
model.save("new/folder"); model.save("new/folder")
for folder in ("", ".", "models", "tests", "metrics", "models/ppo/x", "params.yaml"):
    try:
        model.save(folder)
    except StageError as error:
        print("refused:", folder, error)
"""
    )
    before = outs(world, "models", "tests", "metrics")
    said = notebook(world, program)
    assert said.count("refused:") == 7
    assert outs(world, "models", "tests", "metrics") == before
    assert (world / "new/folder/model.safetensors").is_file()


OLD = dict(re.findall(r"^\| `([\w./ -]+)` \| `([^`]+)` \|$", README, re.MULTILINE))


def test_the_settings_of_the_old_command_lines_are_known() -> None:
    set_there = [re.findall(r"-S ([\w.]+)=(\S+)", new) for new in OLD.values()]
    assert sum(map(len, set_there)) >= 3
    for changes in set_there:
        RLHFConfig(**{key: yaml.safe_load(value) for key, value in changes})


@pytest.mark.parametrize(
    "old", [pytest.param(old, marks=() if "config" in old else pytest.mark.thorough) for old in OLD if ".py" in old]
)
def test_the_old_command_line(world: World, old: str) -> None:
    tree = yaml.safe_load((world / "params.yaml").read_text())
    tree["ppo"]["kl_coef"] = 0.5
    (world / "custom_config.yaml").write_text(yaml.safe_dump(tree))
    world.run("bash", "-c", OLD[old])
    figures = json.loads((world / "reports/evaluation.json").read_text())
    ppo = json.loads((world / "reports/ppo.json").read_text())
    if "steps" in old:
        assert (ppo["steps"], ppo["episodes"]) == (100, 1600)
    elif "num-samples" in old:
        assert figures["prompts"] == 10
    elif "config" in old:
        table = (world / "plots/ppo.csv").read_text().splitlines()
        assert float(table[1].split(",")[table[0].split(",").index("kl_coef")]) == 0.5


def test_the_old_results_have_their_place(world: World) -> None:
    assert {old for old in OLD if old.startswith("results/")} == {
        "results/evaluation_results.json",
        "results/comparison_plot.png",
    }
    for old in OLD:
        if old.startswith("results/"):
            assert (world / OLD[old]).is_file()
    assert len([old for old in OLD if ".py" in old]) == 4


def test_the_tour_runs_from_top_to_bottom(world: World) -> None:
    tour = run(world / "docs/tour.ipynb", world.folder)
    said = "".join(text_of(cell) for cell in tour.cells if cell.cell_type == "code")
    assert "Stage 'ppo' didn't change, skipping" in said
    assert "RLHF over SFT: " in said
    assert "words in a response: " in said


def test_the_tour_shows_the_figures_of_the_metrics() -> None:
    """The recorded figures of the tour equal the metrics."""
    tour = nbformat.read(ROOT / "docs/tour.ipynb", as_version=4)
    said = "".join(text_of(cell) for cell in tour.cells if cell.cell_type == "code")
    figures = json.loads((ROOT / "metrics/evaluation.json").read_text())
    gain = figures["improvement_over_sft"]
    assert f"RLHF over SFT: {gain['mean_positive']:+.3f} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}]" in said
    for name in ("base", "sft", "rlhf"):
        row = re.search(rf"^{name} +([\d.]+) +([\d.]+) +([\d.]+)", said, re.MULTILINE)
        assert row, name
        for shown, key in zip(row.groups(), ("mean_positive", "positive_ratio", "lexicon_positive"), strict=True):
            assert abs(float(shown) - figures[name][key]) <= 0.00051, (name, key)


def text_of(cell: nbformat.NotebookNode) -> str:
    """Return the outputs of a cell as text."""
    shown = [output.get("text", "") + output.get("data", {}).get("text/plain", "") + "\n" for output in cell.outputs]
    return "".join(shown)


# A wrong call, and what its message names: the argument with its value, the file, or the setting.
WRONG: dict[str, tuple[str, ...]] = {
    "run_evaluation(config, 'one text')": ("prompts ", "'one text'"),
    "run_evaluation(config, [])": ("prompts ", "[]"),
    "run_evaluation(config, custom_prompts='one text')": ("prompts ", "'one text'"),
    "run_evaluation(config, ['fine'], custom_prompts=['fine'])": ("custom_prompts", "prompts"),
    "run_evaluation(config, [''])": ("prompt", "empty"),
    "run_evaluation(config, ['a b c d e f ' * 99])": ("prompt 'a b c", "max_new_tokens", "160 positions"),
    "run_evaluation(config, ['fine'], samples=0)": ("samples ", "0"),
    "run_evaluation(config, ['fine'], samples=True)": ("samples ", "True"),
    "run_evaluation({'ppo': 3})": ("config ", "RLHFConfig", "{'ppo': 3}"),
    "model.score(['fine', 3])": ("responses ", "['fine', 3]"),
    "model.score(['fine'], ['one', 'two'])": ("2 prompts", "1 responses"),
    "model.score(['a b c d e f ' * 99])": ("'a b c", "reward.max_length", "160"),
    "model.probability(['fine'], over='dull')": ("over ", "'dull'"),
    "model.save('models/reward')": ("models/reward",),
    "model.save(None)": ("folder ", "None"),
    "model.train_reward_model(rows(text='x'))": ("dataset", "chosen, prompt, rejected", "text"),
    "model.train_reward_model(rows(prompt='x', chosen=None, rejected='y'))": ("dataset, row 0", "chosen"),
    "model.train_reward_model(rows(prompt='x', chosen='y', rejected='y'))": ("dataset, row 0", "chosen", "rejected"),
    "model.train_reward_model(rows(prompt='x', chosen='z', rejected='y'))": ("dataset", "split train"),
    "model.train_reward_model(rows(prompt='x', chosen='z', rejected='y', split='train'))": (
        "dataset",
        "split train",
        "validation",
    ),
    "model.train_reward_model([{'prompt': 'x'}])": ("dataset ", "datasets.Dataset", "[{'prompt': 'x'}]"),
    "PreferenceDataProcessor(config).load_custom_data('')": ("path ", "''"),
    "train_ppo(config, RewardModel)": ("reward ", "<class"),
    "train_ppo(config, 3)": ("reward ", "3"),
    "train_ppo(config, lambda prompts, responses: [1.0])": ("reward function", "1 numbers", "4 responses"),
    "train_ppo(config, lambda prompts, responses: None)": ("reward function", "numbers"),
    "train_ppo(config, lambda prompts, responses: [float('nan')] * len(responses))": ("reward function", "finite", "response "),
}


def test_wrong_arguments_give_one_line(world: World, notebook: Callable[..., str]) -> None:
    program = (
        IMPORTS
        + f"""
from datasets import Dataset

config, model = RLHFConfig(), RewardModel(RLHFConfig())

def rows(**row):
    return Dataset.from_list([row])

for wrong in {list(WRONG)}:
    try:
        eval(wrong)
    except StageError as error:
        print("said:", error)
    else:
        print("said: nothing of", wrong)
"""
    )
    lines = [line for line in notebook(world, program).splitlines() if line.startswith("said: ")]
    assert len(lines) == len(WRONG)
    for line, parts in zip(lines, WRONG.values(), strict=True):
        assert_names(line, *parts)
