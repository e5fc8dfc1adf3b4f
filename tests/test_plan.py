"""The plan of PPO's memory: each formula worked by hand, the count of a pass, and which runs are refused."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import GPT2Config, LlamaConfig, MistralConfig, PreTrainedTokenizerBase

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models.loading import save
from rlhf_sentiment.planning import forecast
from rlhf_sentiment.planning.memory import (
    Moment,
    Plan,
    Weights,
    experience_bytes,
    fitting,
    gradient_bytes,
    optimizer_bytes,
    plan_of,
    weights_of,
)
from rlhf_sentiment.planning.passes import FAKE, Lengths, Live, empty_actors, exact_kl, rollout, scoring, training
from rlhf_sentiment.ppo import loop
from rlhf_sentiment.ppo.step import assess
from rlhf_sentiment.sampling.rollout import Responses, batch_of, respond
from rlhf_sentiment.sampling.rollout import exact_kl as real_kl

from .closure import ROOT
from .conftest import RunStage, World, assert_names, the_error, tiny_params
from .test_adapters import LORA
from .test_ppo_step import actors_of, gradients_of, noise, settings

GPT2 = GPT2Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
LENGTHS = Lengths(longest=4, mean=4.0, response=6, room=6)
MIB = 2**20


def test_live_counts_what_exists_at_the_same_time() -> None:
    with FAKE:
        x = torch.empty(1000)  # known
        with Live([x]) as live:
            a = x * 2  # 4,000 bytes
            b = a + 1  # 4,000 bytes
            assert live.now == 8000
            del a
            assert live.now == 4000
            view = b[:10].view(2, 5)
            x.mul_(2)
            assert live.now == 4000, "a view and a result in place take nothing"
            c = b.to(torch.bfloat16)  # 2,000 bytes
            assert (live.now, live.peak) == (6000, 8000)
            del b, view, c
            assert live.now == 0


def test_live_counts_what_is_kept_for_the_gradient() -> None:
    """With x (3, 5) and W (5, 7), exp(x W) has 84 bytes and is kept. Its gradient has 84, and that of W has 140."""
    with FAKE:
        x, w = torch.empty(3, 5), torch.empty(5, 7, requires_grad=True)
        with Live([x, w]) as live:
            loss = (x @ w).exp().sum()
            assert live.now == 84 + 4
            loss.backward()
            del loss
            assert live.now == 140
            assert live.peak == 84 + 140 + 4 + 4, "with the loss and its gradient, after exp(x W) is free"


def test_the_bytes_of_gradients_optimizer_and_experience() -> None:
    assert (optimizer_bytes(10), gradient_bytes(10, ranks=1), gradient_bytes(10, ranks=2)) == (80, 40, 80)
    # A row: 2 (3 + 4) + 4 = 18 numbers of 8 bytes, and 4 (9 + 5) = 56 numbers of 4 bytes.
    assert experience_bytes(2, Lengths(3, 2.0, 4, 4), width=5) == 2 * (18 * 8 + 56 * 4)


# GPT2: embeddings (40 + 64) 16 = 1664. A layer: two norms 64, c_attn 816, c_proj 272, c_fc 1088, c_proj 1040: 3280. A norm 32.
TRUNK = 4 * (1664 + 2 * 3280 + 32)
SHARED = 4 * (16 * 16 + 16 + 16 + 1)
# An adapter of rank 2: A has 2 rows of inputs, and B 2 columns of outputs: 2 (64 + 32 + 80 + 80) in a layer.
ADAPTER = 4 * 2 * 2 * (64 + 32 + 80 + 80)
PRODUCTS = 4 * 2 * (768 + 256 + 1024 + 1024)


@pytest.mark.parametrize(
    ("changes", "reward_adapts", "expected"),
    [
        ({"critic": "shared"}, False, Weights(TRUNK, TRUNK, TRUNK + 64, SHARED, (TRUNK + SHARED) // 4, 0, 16)),
        ({"critic": "separate"}, False, Weights(TRUNK, TRUNK, TRUNK + 64, TRUNK + 68, (2 * TRUNK + 68) // 4, 0, 0)),
        (
            {"critic": "shared", "frozen_dtype": "bfloat16"},
            False,
            Weights(TRUNK, TRUNK // 2, TRUNK // 2 + 64, SHARED, (TRUNK + SHARED) // 4, 0, 16),
        ),
        (
            {"critic": "shared", "lora": LORA},
            True,
            Weights(TRUNK + 2 * ADAPTER, 0, 64, SHARED, (ADAPTER + SHARED) // 4, PRODUCTS, 16),
        ),
        (
            {"critic": "separate", "lora": LORA},
            False,
            Weights(TRUNK + 2 * ADAPTER, 0, TRUNK + 64, 68, (2 * ADAPTER + 68) // 4, PRODUCTS, 0),
        ),
    ],
)
def test_the_bytes_of_the_weights(changes: dict[str, Any], reward_adapts: bool, expected: Weights) -> None:
    actors = empty_actors(GPT2, settings(**changes), reward_adapts)
    assert weights_of(actors, expected.width) == expected


def test_a_plan_adds_the_largest_moment_to_libraries_and_weights() -> None:
    small, large = Moment("a", 1, 2, 3, 4), Moment("b", 10, 0, 0, 90)
    plan = Plan(1000, Weights(5, 6, 7, 8, 0, 0, 0), [small, large], heap=1.5)
    assert plan.largest == large
    assert plan.total == 1000 + 26 + 150


def full_batch() -> Responses:
    """Return eight prompts of four tokens with responses of six tokens."""
    return batch_of([[5, 6, 7, 8]] * 8, [[9, 10, 11, 12, 13, 14]] * 8, 1, "cpu")


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("micro", [8, 4])
def test_the_count_without_data_is_that_of_the_real_passes(tiny_model: Callable[..., Any], critic: str, micro: int) -> None:
    """The real passes of a step, on real tensors, have the peak that the plan counts: within a tenth."""
    size = {"n_embd": 64, "vocab_size": 400}
    actors, batch = actors_of(tiny_model, critic, **size), full_batch()
    with_settings = settings(critic=critic, micro_batch_size=micro)
    empty = empty_actors(actors.policy.config, with_settings, False)
    models: list[Any] = [actors.policy, actors.reference, actors.critic, actors.reward.model]
    known = [tensor for one in models for tensor in (*one.parameters(), *one.buffers())]
    with FAKE:
        told = [
            scoring(empty, with_settings, micro, LENGTHS),
            training(empty, with_settings, micro, micro == 8, LENGTHS),
            exact_kl(empty, with_settings, 8, LENGTHS),
            rollout(empty, with_settings, 8, LENGTHS),
        ]
    with Live(known) as scored:
        experience = assess(actors, batch, with_settings, 0.1)
    with Live(known) as trained:
        gradients_of(actors, experience, with_settings)
    with Live(known) as compared:
        real_kl(actors.policy, actors.reference, batch, 1.0)
    with Live(known) as sampled:
        respond(actors.policy, batch.prompts(), noise(), -1, 1)
    found = [one.peak for one in (scored, trained, compared, sampled)]
    assert told == pytest.approx(found, rel=0.1), (told, found)


def test_the_cache_has_memory_for_full_responses() -> None:
    """A token takes keys and values of 16 numbers in two layers: 256 bytes in each of 8 rows."""
    with FAKE:
        actors = empty_actors(GPT2, settings(), False)
        short, long = (rollout(actors, settings(), 8, LENGTHS._replace(response=1, room=room)) for room in (20, 40))
    assert long - short == 8 * 20 * 256


@pytest.mark.parametrize("config", [LlamaConfig, MistralConfig])
def test_other_architectures_are_counted_too(config: type) -> None:
    """A Llama packs. A Mistral looks back over a window, so it computes the padding."""
    tiny = config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    plan = plan_of(tiny, settings(), False, LENGTHS, validation=8)
    assert plan.weights.policy > plan.weights.critic > 0
    assert all(moment.rest > 0 for moment in plan.moments[:-1])


def test_recomputed_layers_take_less_memory_and_more_rows_take_more() -> None:
    deep = copy.deepcopy(GPT2)
    deep.n_layer = 12
    kept, recomputed = (
        plan_of(deep, settings(gradient_checkpointing=recomputes), False, LENGTHS, 8).moments[4].rest
        for recomputes in (False, True)
    )
    assert recomputed < 0.5 * kept
    smaller = plan_of(deep, settings(micro_batch_size=2), False, LENGTHS, 8)
    assert smaller.moments[4].rest < 0.5 * kept
    assert smaller.weights == plan_of(deep, settings(), False, LENGTHS, 8).weights


def test_a_plan_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    plan_of(GPT2, settings(lora=LORA), True, LENGTHS, 8)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_micro_batch_that_fits() -> None:
    """A row takes 10, and the rest 100."""

    def total(rows: int) -> int:
        return 100 + 10 * rows

    assert fitting(16, total, 150, 16) == 4
    assert fitting(16, total, 180, 16) == 8
    assert fitting(12, total, 165, 12) == 6
    assert fitting(16, total, 109, 16) is None


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a folder with settings only, in which `ppo` can be planned."""
    params = tiny_params()
    params["arithmetic"] = "fast"
    params["base"] |= {"width": 64, "layers": 2, "vocab_size": 2000}
    params["ppo"] |= {"batch_size": 32, "micro_batch_size": 32, "max_new_tokens": 48}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    monkeypatch.setattr(forecast, "_libraries", lambda *_: (100 * MIB, 1.25))
    return World(tmp_path)


def test_the_plan_is_told_before_there_is_a_model_and_nothing_is_written(planned: World, run_stage: RunStage) -> None:
    said = run_stage(planned, "ppo", "--plan").out
    assert_names(said, "weights of the policy", "optimizer", "gradients", "total", "available on cpu", "and the run fits")
    assert_names(said, "there is no models/sft", "a step takes about", "on one and two of 2 layers")
    assert [path.name for path in planned.folder.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("available", "names"),
    [
        (130 * MIB, ("lower ppo.micro_batch_size to 8", "which would fit")),
        (50 * MIB, ("no ppo.micro_batch_size", "ppo.batch_size", "ppo.gradient_checkpointing: true", "ppo.lora")),
    ],
)
def test_a_plan_that_does_not_fit_names_the_settings_to_change(
    planned: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, available: int, names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(forecast, "available_of", lambda _: available)
    ended = run_stage(planned, "ppo", "--plan", status=1)
    assert_names(the_error("ppo", ended.err), "needs about 0.1 GiB", *names)
    assert_names(ended.out, "the run does not fit")


def test_processes_on_one_cpu_share_its_memory(planned: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.set("launcher", 2)
    monkeypatch.setattr(forecast, "available_of", lambda _: 220 * MIB)
    assert_names(run_stage(planned, "ppo", "--plan", status=1).out, "MiB in each process")


def test_divided_weights_are_not_refused_by_a_plan_that_does_not_count_them(
    planned: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.set("launcher", str(ROOT / "docs/scaling/fsdp2.yaml"))
    monkeypatch.setattr(forecast, "available_of", lambda _: 220 * MIB)
    assert_names(run_stage(planned, "ppo", "--plan").out, "FSDP divides the weights", "the run may fit with FSDP")


@pytest.mark.parametrize(("cores", "at_once"), [(8, 2), (2, 1)])
def test_processes_are_faster_only_where_each_has_its_own_cores(
    planned: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, cores: int, at_once: int
) -> None:
    planned.set("launcher", 2)
    planned.set("threads", 2)
    planned.set("ppo.steps", 10)
    monkeypatch.setattr("psutil.cpu_count", lambda: cores)
    monkeypatch.setattr(forecast, "seconds_of_step", lambda *_: (8.0, "given"))
    assert_names(
        run_stage(planned, "ppo", "--plan").out, f"a step takes about {8 / at_once:.1f} s", f"take {80 / at_once:.0f} s"
    )


def test_responses_beyond_the_positions_are_one_line(planned: World, run_stage: RunStage) -> None:
    planned.set("ppo.max_new_tokens", 100_000)
    said = the_error("ppo", run_stage(planned, "ppo", "--plan", status=1).err)
    assert_names(said, "ppo.max_new_tokens 100000", "positions", "lower it")


def test_other_stages_have_no_plan(planned: World, run_stage: RunStage) -> None:
    assert_names(run_stage(planned, "sft", "--plan", status=2).err, "--plan")


def test_a_run_is_refused_only_where_short_responses_would_not_fit(planned: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, params = torch.device("cpu"), planned / "params.yaml"
    long = settings(max_new_tokens=64, batch_size=64, micro_batch_size=64)
    monkeypatch.setattr(forecast, "_libraries", lambda *_: (0, 1.0))
    known = forecast.known_of(long, params)
    shortest = known._replace(lengths=known.lengths._replace(response=1))
    full, short = (plan_of(one.config, long, False, one.lengths, one.validation).total for one in (known, shortest))
    assert short * 1.2 < full
    for available, is_refused in ((full, False), (full - 1, False), (short / 1.19, False), (short / 1.21, True)):
        monkeypatch.setattr(forecast, "available_of", lambda _, available=available: int(available))
        if is_refused:
            with pytest.raises(StageError, match=r"^this run needs about .* GiB .*ppo\.micro_batch_size"):
                forecast.refuse(long, params, cpu)
        else:
            forecast.refuse(long, params, cpu)


@pytest.fixture
def runnable(planned: World, tiny_model: Callable[..., Any], letters: PreTrainedTokenizerBase, monkeypatch: Any) -> World:
    """Return a folder with tiny models and prompts, in which `ppo` can run."""
    monkeypatch.chdir(planned.folder)
    save(tiny_model("causal"), letters, "models/sft")
    save(tiny_model("reward"), letters, "models/reward")
    (planned / "data/prepared").mkdir(parents=True)
    rows = [
        f'{{"prompt": "{"abcdefgh"[: 2 + k % 3]}", "split": "{split}"}}\n'
        for k in range(8)
        for split in ("train", "validation")
    ]
    (planned / "data/prepared/prompts.jsonl").write_text("".join(rows))
    return planned


def test_the_files_say_what_is_known(runnable: World) -> None:
    known = forecast.known_of(settings(validation_prompts=None), runnable / "params.yaml")
    assert known.lengths == Lengths(4, 23 / 8, 6, 6), "three prompts of 2 letters, three of 3 and two of 4"
    assert (known.validation, known.reward_adapts, known.assumed) == (8, False, [])
    assert known.config.vocab_size == 40


def test_the_settings_of_another_file_are_not_planned_with_the_models_of_this_folder(runnable: World) -> None:
    other = runnable / "other.yaml"
    other.write_text((runnable / "params.yaml").read_text())
    known = forecast.known_of(settings(validation_prompts=None), other)
    assert (known.config.vocab_size, known.lengths.longest) == (2000, 16), "those of its `base`"
    assert_names("; ".join(known.assumed), "models/sft is not that of", "other.yaml", "no prompts of this run")


def test_too_little_memory_on_a_gpu_names_the_micro_batch_that_would_fit(
    runnable: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(loop, "train_policy", fail)
    monkeypatch.setattr(forecast, "available_of", lambda _: 130 * MIB)
    error = the_error("ppo", run_stage(runnable, "ppo", status=1).err)
    assert_names(error, "the memory of cpu is not enough", "lower ppo.micro_batch_size to 16, which would fit")
