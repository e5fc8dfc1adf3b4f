"""A whole PPO step: identities of the first update, equal results for all micro-batches, and a task to learn."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models.loading import load_reward_model, save
from rlhf_sentiment.models.recomputing import recompute
from rlhf_sentiment.ppo import equations
from rlhf_sentiment.ppo.actors import Actors, critic_of, make_optimizer
from rlhf_sentiment.ppo.actors import actors_of as loaded_actors
from rlhf_sentiment.ppo.loop import LoopState, begin, make_accelerator, take_step
from rlhf_sentiment.ppo.step import Experience, _gradients, assess, collect, learn
from rlhf_sentiment.rewards import Reward, reward_of_model, reward_of_texts
from rlhf_sentiment.sampling.rollout import Responses, batch_of, score_tokens, uniforms
from rlhf_sentiment.settings.ppo import PPOSettings

from .conftest import assert_names

EOS, PAD = 0, 1
PROMPTS = [[5], [7, 8, 9, 10], [11, 12], [6, 6, 6], [9], [5, 5], [13, 2, 3], [20]]
SETTINGS = PPOSettings(
    steps=1,
    batch_size=8,
    minibatches=1,
    micro_batch_size=8,
    ppo_epochs=1,
    critic="separate",
    dtype="float32",
    learning_rate=1e-3,
    critic_learning_rate=None,
    max_grad_norm=1.0,
    max_new_tokens=6,
    temperature=0.9,
    kl_coef=0.1,
    kl_target=None,
    kl_horizon=1000,
    kl_stop=None,
    gamma=1.0,
    lam=0.95,
    clip_range=0.2,
    clip_range_value=0.2,
    vf_coef=0.1,
    normalise_reward=False,
    missing_eos_penalty=None,
    validation_every=1,
    validation_prompts=1,
    frozen_dtype="float32",
    gradient_checkpointing=False,
    lora=None,
)


def actors_of(tiny_model: Callable[..., Any], critic: str = "separate", **size: int) -> Actors:
    policy, reward = tiny_model("causal", **size), reward_of_model(tiny_model("reward", seed=1, **size))
    return Actors(
        policy=policy,
        reference=copy.deepcopy(policy).requires_grad_(False),
        reward=reward,
        critic=critic_of(settings(critic=critic), policy, reward),
        eos=EOS,
        pad=PAD,
    )


def settings(**changes: Any) -> PPOSettings:
    return PPOSettings(**SETTINGS.model_dump() | changes)


def noise(step: int = 0, rows: int = 8, length: int = 6) -> torch.Tensor:
    return torch.stack([uniforms(length, 1, step, row) for row in range(rows)])


def optimizer_of(actors: Actors, rate: float = 1e-3) -> torch.optim.Optimizer:
    optimizer = make_optimizer(actors, SETTINGS)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return optimizer


def on_cpu() -> Accelerator:
    return make_accelerator(torch.device("cpu"))


def learned(actors: Actors, experience: Experience, with_settings: PPOSettings) -> dict[str, float]:
    return learn(actors, optimizer_of(actors), on_cpu(), experience, with_settings, (1, 2))


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("scoring", [8, 4, 1])
@pytest.mark.parametrize("training", [8, 2])
def test_the_first_minibatch_has_ratio_one(tiny_model: Callable[..., Any], critic: str, scoring: int, training: int) -> None:
    actors = actors_of(tiny_model, critic)
    experience = collect(actors, PROMPTS, noise(), settings(micro_batch_size=scoring), 0.1)
    assert (experience.kl_k1 == 0).all(), "the policy is still its reference"
    figures = learned(actors, experience, settings(micro_batch_size=training))
    assert figures["first_ratio_error"] < 1e-5
    assert figures["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert figures["clip_fraction"] == 0


def test_the_first_ratio_is_one_with_gpt2s_vocabulary(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model, vocab_size=50257)
    experience = collect(actors, PROMPTS, noise(), settings(micro_batch_size=1), 0.1)
    assert learned(actors, experience, SETTINGS)["first_ratio_error"] < 1e-4


@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_first_ratio_in_bfloat16_is_exactly_one_in_the_same_micro_batches(
    tiny_model: Callable[..., Any], minibatches: int
) -> None:
    actors = actors_of(tiny_model)
    half = settings(dtype="bfloat16", micro_batch_size=2, minibatches=minibatches)
    experience = collect(actors, PROMPTS, noise(), half, 0.1)
    full = collect(actors, PROMPTS, noise(), settings(micro_batch_size=2), 0.1)
    assert not torch.equal(experience.values, full.values), "products are in bfloat16"
    assert experience.log_probs.dtype == experience.values.dtype == experience.scores.dtype == torch.float32
    assert learned(copy.deepcopy(actors), experience, half)["first_ratio_error"] == 0.0
    other = learned(actors, experience, settings(dtype="bfloat16"))["first_ratio_error"]
    assert other < 0.1, "other micro-batches change only the rounding"


def test_only_the_first_epoch_keeps_the_order_of_rows(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    actors, with_settings = actors_of(tiny_model), settings(minibatches=2, micro_batch_size=2, ppo_epochs=2)
    experience = collect(actors, PROMPTS, noise(), with_settings, 0.1)
    taken: list[int] = []

    take = Responses.take

    def spy(batch: Responses, rows: torch.Tensor) -> Responses:
        taken.extend(rows.tolist())
        return take(batch, rows)

    monkeypatch.setattr(Responses, "take", spy)
    learned(actors, experience, with_settings)
    assert taken[:8] == list(range(8)), "these are the micro-batches in which the rows were scored"
    assert sorted(taken[8:]) == list(range(8))
    assert taken[8:] != list(range(8))


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("micro", [4, 2, 1])
def test_the_gradient_does_not_depend_on_micro_batches(tiny_model: Callable[..., Any], critic: str, micro: int) -> None:
    class Recorder(torch.optim.SGD):
        """An optimizer that keeps the gradient of the first step."""

        def step(self, closure: Any = None) -> Any:
            gradients.append(
                torch.cat([p.grad.flatten().double() for p in self.param_groups[0]["params"] if p.grad is not None])
            )
            return super().step(closure)

    gradients: list[torch.Tensor] = []
    figures = []
    for size in (8, micro):
        actors = actors_of(tiny_model, critic)
        experience = collect(actors, PROMPTS, noise(), SETTINGS, 0.1)
        optimizer = Recorder(actors.parameters(), lr=1e-3)
        figures.append(learn(actors, optimizer, on_cpu(), experience, settings(micro_batch_size=size), (1, 2)))
    one, other = gradients
    assert (one - other).norm() < 1e-6 * one.norm()
    for name in ("policy_loss", "value_loss", "grad_norm"):
        # The policy's loss is a sum of terms of order 1 that cancel: a few of float32's steps, 1.2e-7, are rounding.
        assert figures[0][name] == pytest.approx(figures[1][name], rel=2e-6, abs=5e-7)


def test_there_are_epochs_times_minibatches_optimizer_steps(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model)
    with_settings = settings(ppo_epochs=3, minibatches=4, micro_batch_size=2)
    optimizer = optimizer_of(actors)
    experience = collect(actors, PROMPTS, noise(), with_settings, 0.1)
    learn(actors, optimizer, on_cpu(), experience, with_settings, (1, 2))
    assert {int(state["step"]) for state in optimizer.state.values()} == {12}


def test_no_optimizer_step_uses_the_gradient_of_another(tiny_model: Callable[..., Any]) -> None:
    norms = []
    for epochs in (1, 3):
        actors, with_settings = actors_of(tiny_model), settings(ppo_epochs=epochs)
        experience = collect(actors, PROMPTS, noise(), with_settings, 0.1)
        still = optimizer_of(actors, rate=0.0)
        norms.append(learn(actors, still, on_cpu(), experience, with_settings, (1, 2))["grad_norm"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5), "the weights do not change, so each epoch has the same gradient"


def test_the_environment_does_not_scale_the_gradient(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    for steps in ("1", "4"):
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", steps)
        actors = actors_of(tiny_model)
        norms.append(learned(actors, collect(actors, PROMPTS, noise(), SETTINGS, 0.1), SETTINGS)["grad_norm"])
    assert norms[0] == norms[1]


def test_the_gradient_is_clipped(tiny_model: Callable[..., Any]) -> None:
    actors, with_settings = actors_of(tiny_model), settings(max_grad_norm=1e-3)
    experience = collect(actors, PROMPTS, noise(), with_settings, 0.1)
    before = torch.cat([p.detach().flatten().clone() for p in actors.parameters()])
    figures = learn(
        actors,
        torch.optim.SGD(actors.parameters(), lr=1.0),
        on_cpu(),
        experience,
        with_settings,
        (1, 2),
    )
    moved = torch.cat([p.detach().flatten() for p in actors.parameters()]) - before
    assert figures["grad_norm"] > 0.1, "the figure is the norm before the clip"
    assert float(moved.norm()) == pytest.approx(1e-3, rel=0.01)


def test_losses_get_the_settings_and_their_figures_are_means(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_settings = settings(clip_range=0.13, clip_range_value=0.07, ppo_epochs=3, learning_rate=0.01)
    actors = actors_of(tiny_model)
    experience = collect(actors, PROMPTS, noise(), with_settings, 0.1)
    tokens = experience.batch.response_mask.sum()
    losses: list[tuple[float, float]] = []

    def policy_loss(own: Any, old: torch.Tensor, advantages: Any, mask: Any, clip: float) -> equations.PolicyLoss:
        assert clip == 0.13
        assert sorted(old.flatten().tolist()) == sorted(experience.log_probs.flatten().tolist())
        found = true_policy_loss(own, old, advantages, mask, clip)
        losses.append((float(found.loss.detach() / tokens), float(found.clipped / tokens)))
        return found

    def value_loss(values: Any, old: torch.Tensor, returns: Any, mask: Any, clip: float) -> torch.Tensor:
        assert clip == 0.07
        assert sorted(old.flatten().tolist()) == sorted(experience.values.flatten().tolist())
        return true_value_loss(values, old, returns, mask, clip)

    true_policy_loss, true_value_loss = equations.policy_loss, equations.value_loss
    monkeypatch.setattr(equations, "policy_loss", policy_loss)
    monkeypatch.setattr(equations, "value_loss", value_loss)
    figures = learn(actors, optimizer_of(actors, 0.01), on_cpu(), experience, with_settings, (1, 2))
    assert len(losses) == 3
    assert losses[0] != losses[-1]
    assert figures["policy_loss"] == pytest.approx(sum(loss for loss, _ in losses) / 3, rel=1e-5)
    assert figures["clip_fraction"] == pytest.approx(sum(clipped for _, clipped in losses) / 3, rel=1e-5)


def test_the_value_loss_of_a_shared_critic_moves_its_head_only(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model, "shared")
    torch.nn.init.normal_(actors.critic.head.weight)
    experience = collect(actors, PROMPTS, noise(), SETTINGS, 0.1)
    models: list[Any] = [actors.policy, actors.reference, actors.reward.model, actors.critic]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    learned(actors, experience._replace(advantages=torch.zeros_like(experience.advantages)), SETTINGS)
    moved = [
        any(not torch.equal(weight, old[name]) for name, weight in model.state_dict().items())
        for model, old in zip(models, before, strict=True)
    ]
    assert moved == [False, False, False, True]


def test_the_critics_own_learning_rate_stays_constant(tiny_model: Callable[..., Any]) -> None:
    falling = [0.004, 0.003]
    for critic, own, expected in (
        ("separate", None, falling),
        ("separate", 0.01, [0.01, 0.01]),
        ("shared", None, [0.003, 0.003]),
        ("shared", 0.01, [0.01, 0.01]),
    ):
        actors = actors_of(tiny_model, critic)
        with_settings = settings(steps=4, learning_rate=0.004, critic_learning_rate=own, kl_coef=0.1)
        state = LoopState(actors, make_optimizer(actors, with_settings), last=4, kl_coef=0.1)
        rates = []
        for step in (1, 2):
            take_step(state, PROMPTS, noise(step), with_settings, 1, on_cpu())
            rates.append([group["lr"] for group in state.optimizer.param_groups])
        assert [rate for rate, _ in rates] == pytest.approx(falling)
        assert [rate for _, rate in rates] == pytest.approx(expected)
        critics = {id(weight) for weight in state.optimizer.param_groups[1]["params"]}
        assert critics == {id(weight) for weight in actors.critic.parameters()}


@pytest.mark.parametrize("with_model", [True, False])
def test_a_shared_critic_reads_the_states_of_a_frozen_model(tiny_model: Callable[..., Any], with_model: bool) -> None:
    actors = actors_of(tiny_model, "shared")
    actors.reference = tiny_model("causal", seed=5).requires_grad_(False)
    actors.eos = 39  # a token that some rows sample and some do not
    model: Any = actors.reward.model
    if not with_model:
        actors.reward = Reward(actors.reward.score)
    experience = collect(actors, PROMPTS, noise(), settings(micro_batch_size=2), 0.1)
    assert experience.states is not None
    trunk = (model if with_model else actors.reference).base_model
    rows = zip(PROMPTS, experience.batch.tokens(), strict=True)
    for row, (prompt, tokens) in enumerate(rows):
        alone = trunk(torch.tensor([prompt + tokens])).last_hidden_state[0]
        before = alone[len(prompt) - 1 : -1]
        torch.testing.assert_close(experience.states[row, : len(tokens)], before, rtol=1e-4, atol=1e-5)
        assert not experience.states[row, len(tokens) :].any()
        torch.testing.assert_close(
            experience.scores[row],
            model.score(model.base_model(torch.tensor([prompt + tokens])).last_hidden_state[0, -1])[0],
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("normalise", [True, False])
def test_a_shared_critic_learns_the_rewards_of_the_first_responses(tiny_model: Callable[..., Any], normalise: bool) -> None:
    """The reward is the first token of the prompt, which each state can tell."""
    calls = []

    def first_token(batch: Responses) -> torch.Tensor:
        calls.append(len(batch.sequences))
        return torch.tensor([(prompt[0] - 9) / 5 for prompt in batch.prompts()])

    actors = actors_of(tiny_model, "shared")
    actors.reward = Reward(first_token)
    with_settings = settings(normalise_reward=normalise, micro_batch_size=64)
    begin(actors, PROMPTS * 8, noise(rows=64), with_settings, (1, 2))
    assert calls == [64], "a reward can be expensive"
    assert (actors.reward.std != 1.0) == normalise
    new = collect(actors, PROMPTS * 8, noise(1, rows=64), with_settings, 0.0)
    assert new.figures()["explained_variance"] > 0.3


def test_gamma_and_lambda_are_not_confused(tiny_model: Callable[..., Any]) -> None:
    experience = collect(actors_of(tiny_model), PROMPTS, noise(), settings(gamma=0.9, lam=0.4), 0.0)
    mask = experience.batch.response_mask
    rewards = equations.token_rewards(experience.scores, torch.zeros(mask.shape), mask, 0.0)
    _, returns = equations.gae(rewards, experience.values, mask, gamma=0.9, lam=0.4)
    torch.testing.assert_close(experience.returns, returns)


def test_entropy_is_of_real_tokens(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model)
    actors.eos = 39  # a token that some rows sample and some do not
    experience = collect(actors, PROMPTS, noise(), settings(micro_batch_size=4), 0.0)
    entropies = []
    for prompt, tokens in zip(PROMPTS, experience.batch.tokens(), strict=True):
        one = batch_of([prompt], [tokens], PAD, "cpu")
        entropies += score_tokens(actors.policy, one, 0.9, with_entropy=True).entropy[0].tolist()
    assert len(entropies) < experience.batch.response_mask.numel(), "some rows are shorter"
    assert float(experience.entropy) == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)


def test_scores_and_penalties_are_on_the_right_rows(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model)
    actors.eos = 39  # a token that some rows sample and some do not
    free = collect(actors, PROMPTS, noise(), settings(gamma=1.0, lam=1.0), 0.0)
    actors.reward.missing_eos_penalty = 5.0
    charged = collect(actors, PROMPTS, noise(), settings(gamma=1.0, lam=1.0), 0.0)
    finished = free.batch.finished
    assert finished.any()
    assert not finished.all()
    # With gamma = lambda = 1 and no KL, each real token's return is its row's score, less the penalty.
    for row, length in enumerate(free.batch.response_mask.sum(1).tolist()):
        for experience, penalty in ((free, 0.0), (charged, 0.0 if finished[row] else 5.0)):
            expected = torch.full((length,), float(free.scores[row]) - penalty)
            torch.testing.assert_close(experience.returns[row, :length], expected, rtol=1e-4, atol=1e-4)


def test_the_reward_is_the_scaled_score_less_the_kl_penalty(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model)
    actors.reference = tiny_model("causal", seed=5)
    actors.reward.mean, actors.reward.std = 0.5, 2.0
    experience = collect(actors, PROMPTS, noise(), settings(lam=1.0), 0.3)
    expected_kl = []
    with torch.no_grad():
        for prompt, tokens in zip(PROMPTS, experience.batch.tokens(), strict=True):
            one = batch_of([prompt], [tokens], PAD, "cpu")
            own, other = (score_tokens(model, one, 0.9).log_probs.sum() for model in (actors.policy, actors.reference))
            expected_kl.append(own - other)
    kl = torch.stack(expected_kl)
    torch.testing.assert_close(experience.kl_k1, kl, rtol=1e-4, atol=1e-4)
    assert kl.abs().min() > 0.01
    torch.testing.assert_close(experience.rewards, (experience.scores - 0.5) / 2 - 0.3 * kl, rtol=1e-4, atol=1e-4)
    # With gamma = lambda = 1 the first return is the sum of all rewards, and the value is the critic's own.
    torch.testing.assert_close(experience.returns[:, 0], experience.rewards, rtol=1e-4, atol=1e-4)
    values = actors.critic(experience.batch.sequences, experience.batch.attention_mask, experience.batch.length)
    torch.testing.assert_close(experience.values, values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("vf_coef", [0.0, 0.5])
def test_the_critic_learns_only_if_its_loss_has_weight(tiny_model: Callable[..., Any], vf_coef: float, critic: str) -> None:
    actors, with_settings = actors_of(tiny_model, critic), settings(vf_coef=vf_coef)
    before = actors.critic.head.weight.detach().clone()
    learned(actors, collect(actors, PROMPTS, noise(), with_settings, 0.1), with_settings)
    assert torch.equal(actors.critic.head.weight, before) == (vf_coef == 0.0)


def test_every_figure_is_unchanged_by_extra_padding(tiny_model: Callable[..., Any]) -> None:
    figures = []
    for extra in (0, 5):
        actors = actors_of(tiny_model)
        experience = collect(actors, PROMPTS, noise(), SETTINGS, 0.1)
        wide: dict[str, Any] = {
            name: torch.nn.functional.pad(getattr(experience, name), (0, extra), value=float("nan"))
            for name in ("log_probs", "values", "advantages", "returns")
        }
        tokens = experience.batch.tokens()
        padded = batch_of(PROMPTS, tokens, PAD, "cpu")
        mask = torch.nn.functional.pad(padded.response_mask, (0, extra))
        sequences = torch.nn.functional.pad(padded.sequences, (2, extra), value=PAD)
        attention = torch.nn.functional.pad(padded.attention_mask, (2, extra))
        batch = padded._replace(sequences=sequences, attention_mask=attention, response_mask=mask)
        figures.append(learned(actors, experience._replace(batch=batch, **wide), SETTINGS))
    for name, figure in figures[0].items():
        assert figures[1][name] == pytest.approx(figure, rel=1e-5, abs=1e-7), name


def test_the_score_is_that_of_the_same_text_alone_from_the_saved_model(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    """Other prompts in the batch, padding on both sides and micro-batches do not change the score of training."""
    actors = actors_of(tiny_model)
    actors.eos = 39  # a token that some rows sample and some do not
    save(actors.reward.model, Saved(), tmp_path / "reward")
    again = load_reward_model(tmp_path / "reward")
    again.config.pad_token_id = None  # the score is read at the last token, of any kind
    experience = collect(actors, PROMPTS, noise(), settings(micro_batch_size=4), 0.1)
    lengths = experience.batch.response_mask.sum(1)
    assert lengths.min() < lengths.max(), "rows are padded on both sides"
    for row, (prompt, tokens) in enumerate(zip(PROMPTS, experience.batch.tokens(), strict=True)):
        with torch.no_grad():
            alone = again(torch.tensor([prompt + tokens])).logits[0, 0]
        torch.testing.assert_close(experience.scores[row], alone, rtol=1e-5, atol=1e-5)


class Saved(PreTrainedTokenizerBase):
    """A substitute for a tokenizer, for tests that need no text."""

    def save_pretrained(self, folder: Any, *_: Any, **__: Any) -> Any:
        return ()


def test_the_value_of_a_shared_critic_does_not_depend_on_its_token(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model, "shared")
    torch.nn.init.normal_(actors.critic.head.weight)

    def values(response: list[int]) -> torch.Tensor:
        batch = batch_of([[5, 6]], [response], PAD, "cpu")
        return actors.values(batch, actors.score_and_states(batch)[1])[0]

    one, other = values([3, 4, 5]), values([3, 9, 5])
    torch.testing.assert_close(one[:2], other[:2], rtol=0, atol=1e-6)
    assert (one[2] - other[2]).abs() > 1e-4
    assert actors.reward.model is not None
    hidden = actors.reward.model.base_model(torch.tensor([[5, 6, 3, 4, 5]])).last_hidden_state
    torch.testing.assert_close(one, actors.critic.value(hidden[0, 1:4]))


def test_experience_has_no_tensor_of_the_size_of_the_vocabulary(tiny_model: Callable[..., Any]) -> None:
    experience = collect(actors_of(tiny_model), PROMPTS, noise(), SETTINGS, 0.1)
    for name, field in experience._asdict().items():
        for tensor in field if isinstance(field, tuple) else [] if field is None else [field]:
            assert torch.as_tensor(tensor).numel() <= 8 * (4 + 6), name  # rows x (prompt + response)
            assert torch.as_tensor(tensor).grad_fn is None, name


def test_take_drops_only_padding(tiny_model: Callable[..., Any]) -> None:
    batch = batch_of(PROMPTS, [[3, 4, 0], [6], [9, 9], [2], [3], [4], [5], [6]], PAD, "cpu")
    part = batch.take(torch.tensor([2, 1]))
    assert part.sequences.tolist() == [[1, 1, 11, 12, 9, 9], [7, 8, 9, 10, 6, 1]]
    assert part.attention_mask.tolist() == [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
    assert part.response_mask.tolist() == [[1, 1], [1, 0]]


def test_a_loss_that_is_not_finite_stops_the_run(tiny_model: Callable[..., Any]) -> None:
    actors = actors_of(tiny_model)
    experience = collect(actors, PROMPTS, noise(), SETTINGS, 0.1)
    before = [p.detach().clone() for p in actors.policy.parameters()]
    broken = experience._replace(advantages=torch.full_like(experience.advantages, float("nan")))
    with pytest.raises(StageError) as error:
        learned(actors, broken, SETTINGS)
    assert_names(error.value, "policy_loss", "nan", "epoch 1", "ppo.learning_rate")
    assert all(torch.equal(a, b) for a, b in zip(before, actors.policy.parameters(), strict=True))


@pytest.mark.parametrize(("critic", "dtype"), [("separate", "float32"), ("shared", "float32"), ("separate", "bfloat16")])
def test_ppo_learns_to_write_one_class_of_tokens(tiny_model: Callable[..., Any], critic: str, dtype: str) -> None:
    """The reward is the share of even tokens. A random model writes about half; PPO must raise this share above 90 %."""

    def even_tokens(batch: Responses) -> torch.Tensor:
        even = (batch.responses % 2 == 0) * batch.response_mask
        return even.sum(dim=1) / batch.response_mask.sum(dim=1)

    actors = actors_of(tiny_model, critic)
    actors.reward = Reward(even_tokens, std=0.1)
    with_settings = settings(batch_size=64, micro_batch_size=64, ppo_epochs=4, max_new_tokens=8, kl_coef=0.0, dtype=dtype)
    optimizer, accelerator = optimizer_of(actors, 3e-3), on_cpu()

    def share(experience: Experience) -> float:
        mask = experience.batch.response_mask.bool()
        return float((experience.batch.responses[mask] % 2 == 0).float().mean())

    shares = []
    for step in range(30):
        experience = collect(actors, PROMPTS * 8, noise(step, 64, 8), with_settings, 0.0)
        shares.append(share(experience))
        learn(actors, optimizer, accelerator, experience, with_settings, (1, step))
    assert shares[0] < 0.7
    assert sum(shares[-3:]) / 3 > 0.9


class Letters:
    """A substitute for a tokenizer. Token 2 is b, token 3 is c, and tokens 0 and 1 are special."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(ord("`") + one) for one in ids if one > 1)


def test_a_reward_function_gets_texts_and_returns_scores(tiny_model: Callable[..., Any]) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def reward(prompts: list[str], responses: list[str]) -> list[float]:
        seen.append((prompts, responses))
        return [len(response) for response in responses]

    batch = batch_of([[2], [3, 4]], [[5, 6, 0], [7]], PAD, "cpu")
    actors = actors_of(tiny_model)
    actors.reward = reward_of_texts(reward, Letters())
    assert actors.reward(batch).tolist() == [2.0, 1.0]
    assert seen == [(["b", "cd"], ["ef", "g"])]
    experience = assess(actors, batch, settings(micro_batch_size=1), 0.0)
    assert experience.scores.tolist() == experience.rewards.tolist() == [2.0, 1.0]
    assert seen[1:] == [(["b"], ["ef"]), (["cd"], ["g"])]


def test_a_critic_without_a_reward_model_starts_from_the_policy(tiny_model: Callable[..., Any]) -> None:
    policy = tiny_model("causal")
    critic = critic_of(settings(critic="separate"), policy, Reward(lambda batch: torch.zeros(1)))
    assert critic.trunk is not None
    ours, theirs = dict(critic.trunk.named_parameters()), dict(policy.base_model.named_parameters())
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
        assert ours[name] is not theirs[name]
    critic.rescale(10.0, 2.0)  # the critic has predicted nothing yet, so the value is not -5
    assert not critic(torch.tensor([[2, 3, 4]]), torch.ones(1, 3, dtype=torch.long), 1).any()


def gradients_of(actors: Actors, experience: Experience, with_settings: PPOSettings) -> list[torch.Tensor]:
    """Return the gradients of the first minibatch."""
    rows = torch.arange(with_settings.batch_size // with_settings.minibatches)
    _gradients(actors, on_cpu(), experience, rows, with_settings)
    return [weight.grad for weight in actors.parameters() if weight.grad is not None]


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_layers_give_the_same_gradients(tiny_model: Callable[..., Any], critic: str, dtype: str) -> None:
    kept, recomputed = actors_of(tiny_model, critic), actors_of(tiny_model, critic)
    recomputed.recompute()
    calls: list[bool] = []
    mlp = recomputed.policy.transformer.h[0].mlp
    mlp.register_forward_pre_hook(lambda module, _: calls.append(module.training))
    with_settings = settings(dtype=dtype, micro_batch_size=4)
    experience = collect(recomputed, PROMPTS, noise(), with_settings, 0.1)
    assert torch.equal(experience.log_probs, collect(kept, PROMPTS, noise(), with_settings, 0.1).log_probs)
    assert len(calls) == 6 + 2, "each token of the rollout uses the cache, and each micro-batch is scored once"
    calls.clear()
    both = [gradients_of(actors, experience, with_settings) for actors in (kept, recomputed)]
    assert len(both[0]) == len(both[1]) > 0
    assert all(torch.equal(*pair) for pair in zip(*both, strict=True))
    assert calls == [False] * 4, "each of the two micro-batches is computed twice, without dropout"
    assert learned(recomputed, experience, with_settings)["first_ratio_error"] == 0


def test_an_architecture_without_layers_to_recompute_is_refused(tiny_model: Callable[..., Any]) -> None:
    trunk = tiny_model("causal").transformer
    trunk.supports_gradient_checkpointing = False
    with pytest.raises(StageError, match=r"^ppo\.gradient_checkpointing: .* a gpt2; set false$"):
        recompute(trunk)


def test_frozen_models_in_bfloat16_take_half_the_memory_and_the_critic_stays_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Callable[..., Any], letters: PreTrainedTokenizerBase
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tiny_model("causal"), letters, "models/sft")
    save(tiny_model("reward", seed=1), letters, "models/reward")
    half = settings(frozen_dtype="bfloat16")
    actors = loaded_actors(half, letters, torch.device("cpu"))
    full = loaded_actors(settings(), letters, torch.device("cpu"))
    assert {weight.dtype for weight in actors.reference.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in actors.parameters()} == {torch.float32}
    assert actors.reward.model is not None
    assert actors.reward.model.score.weight.dtype == torch.float32
    ours, theirs = (collect(one, PROMPTS, noise(), half, 0.1) for one in (actors, full))
    assert (theirs.kl_k1 == 0).all()
    assert 0 < ours.kl_k1.abs().max() < 0.3, "a rounding error"
    torch.testing.assert_close(ours.scores, theirs.scores, atol=0.05, rtol=0.05)
    assert not torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.values, theirs.values), "the critic was copied before"
    assert learned(actors, ours, half)["first_ratio_error"] < 1e-5


def test_frozen_models_in_bfloat16_do_not_go_with_adapters() -> None:
    with pytest.raises(ValueError, match=r"ppo\.frozen_dtype: bfloat16 does not go with ppo\.lora"):
        settings(frozen_dtype="bfloat16", lora={"rank": 2, "alpha": 2, "dropout": 0.0, "target": "all"})
