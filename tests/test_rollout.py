"""Sampling and scoring: samples follow the distribution of the model, and padding changes no result."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlhf_sentiment.models.forward import reward_scores
from rlhf_sentiment.models.packing import positions
from rlhf_sentiment.models.value_head import Critic
from rlhf_sentiment.sampling.rollout import ChosenLogProbs, batch_of, draw, exact_kl, respond, score_tokens, uniforms

EOS, PAD = 0, 1
PROMPTS = [[5], [7, 8, 9, 10], [11, 12]]


def noise(rows: int, length: int, seed: int = 3) -> torch.Tensor:
    return torch.stack([uniforms(length, seed, row) for row in range(rows)])


def test_positions_start_at_the_first_real_token() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2]]


def test_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    probabilities = torch.tensor([[0.25, 0.0, 0.5, 0.25]]).expand(5, 4)
    assert draw(probabilities, torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75])).tolist() == [0, 0, 2, 2, 3]


def test_draw_never_takes_a_token_of_probability_zero() -> None:
    probabilities = torch.tensor([[0.0, 0.1, 0.9, 0.0, 0.0]])
    for scale in (1.0, 0.7, 1.0000001, 1e-3, 3.0):  # rounding: the sums are not exactly 1
        assert draw(scale * probabilities, torch.tensor([1 - 2**-24])).tolist() == [2]
        assert draw(scale * probabilities, torch.tensor([0.0])).tolist() == [1]


def test_samples_follow_the_tempered_distribution(tiny_model: Callable[..., Any]) -> None:
    model, count = tiny_model("causal"), 20_000
    prompt = [5, 6, 7]
    tokens = respond(model, [prompt] * count, torch.rand(count, 1), EOS, PAD, temperature=0.7).responses[:, 0]
    with torch.no_grad():
        expected = (model(torch.tensor([prompt])).logits[0, -1] / 0.7).softmax(-1)
    found = torch.bincount(tokens, minlength=40) / count
    assert (found - expected).abs().max() < 0.015  # four standard errors of a share of one half


def test_a_row_does_not_depend_on_its_batch(tiny_model: Callable[..., Any]) -> None:
    model, u = tiny_model("causal"), noise(3, 12)
    together = respond(model, PROMPTS, u, EOS, PAD).tokens()
    alone = [respond(model, [prompt], u[row : row + 1], EOS, PAD).tokens()[0] for row, prompt in enumerate(PROMPTS)]
    assert together == alone


def test_a_response_stops_at_eos_and_counts_it_once(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("causal")
    with torch.no_grad():
        model.transformer.wte.weight[EOS] += 0.5 * model.transformer.wte.weight.std()
    batch = respond(model, [[5, 6]] * 64, torch.rand(64, 30, generator=torch.Generator().manual_seed(1)), EOS, PAD)
    lengths = batch.response_mask.sum(dim=1)
    assert len(set(lengths.tolist())) > 3
    for row, tokens in enumerate(batch.tokens()):
        assert EOS not in tokens[:-1]
        assert bool(batch.finished[row]) == (tokens[-1] == EOS)
        assert len(tokens) <= 30
        assert len(tokens) == 30 or bool(batch.finished[row])
        assert (batch.responses[row, len(tokens) :] == PAD).all()
    assert 1 in lengths, "a response of one token, the EOS, is valid"


def test_a_sampled_pad_token_is_a_real_token(tiny_model: Callable[..., Any]) -> None:
    # Masks come from lengths: a sampled token 7 counts, even if 7 is the pad id.
    model = tiny_model("causal")
    cumulative = model(torch.tensor([[5]])).logits[0, -1].softmax(-1).cumsum(-1).detach()
    at_seven = (cumulative[6] + cumulative[7]) / 2
    batch = respond(model, [[5], [5, 6]], torch.stack([at_seven, at_seven])[:, None], EOS, pad=7)
    assert batch.tokens()[0] == [7]
    assert batch.response_mask[0].tolist() == [1]


def test_noise_depends_on_its_coordinates_alone() -> None:
    assert torch.equal(uniforms(8, 1, 2, 3), uniforms(8, 1, 2, 3))
    assert not torch.equal(uniforms(8, 1, 2, 3), uniforms(8, 1, 3, 2))
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    uniforms(8, 1)
    assert torch.equal(before, torch.rand(1)), "noise does not use the global generator"


def test_log_probs_are_those_of_the_whole_sequence(tiny_model: Callable[..., Any]) -> None:
    model, temperature = tiny_model("causal"), 0.8
    responses = [[3, 4, 0], [6], [9, 9]]
    batch = batch_of(PROMPTS, responses, PAD, "cpu")
    found, entropy = score_tokens(model, batch, temperature, with_entropy=True)
    for row, (prompt, response) in enumerate(zip(PROMPTS, responses, strict=True)):
        logits = model(torch.tensor([prompt + response])).logits[0] / temperature
        everything = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected = everything.gather(-1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(found[row, : len(response)], expected, rtol=1e-5, atol=1e-5)
        expected_entropy = torch.distributions.Categorical(logits=everything).entropy()
        torch.testing.assert_close(entropy[row, : len(response)], expected_entropy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chosen_log_probs_and_their_gradient_are_those_of_log_softmax(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(2500, 1000) * 3).to(dtype).requires_grad_()  # more rows than are converted to float32 at a time
    tokens, weight = torch.randint(0, 1000, (2500,)), torch.randn(2500)
    everything = (logits.float() / 0.7).log_softmax(dim=-1)
    expected = everything.gather(-1, tokens[:, None]).squeeze(-1)
    (expected * weight).sum().backward()
    copy = logits.detach().clone().requires_grad_()
    found, entropy = ChosenLogProbs.apply(copy * 1, tokens, 0.7, True)  # "* 1": as from a projection, not a leaf
    (found * weight).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, -(everything.exp() * everything).sum(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(copy.grad, logits.grad, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-7)


@pytest.mark.parametrize("extra", [0, 3])
def test_padding_changes_no_reward_and_no_value(tiny_model: Callable[..., Any], extra: int) -> None:
    reward = tiny_model("reward")
    critic = Critic.from_reward_model(tiny_model("reward"))
    responses = [[3, 4, 0], [6], [9, 9]]
    batch = batch_of([*PROMPTS, [2] * (4 + extra)], [*responses, [2] * (3 + extra)], PAD, "cpu")
    scores = reward_scores(reward, batch.sequences, batch.attention_mask)
    values = critic(batch.sequences, batch.attention_mask, batch.length)
    for row, (prompt, response) in enumerate(zip(PROMPTS, responses, strict=True)):
        alone = reward(torch.tensor([prompt + response])).logits[0, 0]
        torch.testing.assert_close(scores[row], alone, rtol=1e-5, atol=1e-5)
        one = batch_of([prompt], [response], PAD, "cpu")
        own = critic(one.sequences, one.attention_mask, one.length)[0]
        torch.testing.assert_close(values[row, : len(response)], own, rtol=1e-5, atol=1e-5)


def test_the_value_at_t_does_not_depend_on_token_t(tiny_model: Callable[..., Any]) -> None:
    critic = Critic.from_reward_model(tiny_model("reward"))

    def values(response: list[int]) -> torch.Tensor:
        batch = batch_of([[5, 6]], [response], PAD, "cpu")
        return critic(batch.sequences, batch.attention_mask, batch.length)[0]

    one, other = values([3, 4, 5]), values([3, 9, 5])
    torch.testing.assert_close(one[:2], other[:2], rtol=0, atol=1e-6)
    assert (one[2] - other[2]).abs() > 1e-4


def test_a_rescaled_critic_predicts_the_scaled_score(tiny_model: Callable[..., Any]) -> None:
    critic, batch = Critic.from_reward_model(tiny_model("reward")), batch_of(PROMPTS, [[3], [4], [5]], PAD, "cpu")
    before = critic(batch.sequences, batch.attention_mask, 1)
    critic.rescale(mean=2.0, std=4.0)
    torch.testing.assert_close(critic(batch.sequences, batch.attention_mask, 1), (before - 2) / 4)


def test_exact_kl_is_what_sampled_log_ratios_estimate(tiny_model: Callable[..., Any]) -> None:
    model, reference, count = tiny_model("causal", seed=0), tiny_model("causal", seed=0), 4000
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    batch = respond(model, [[5, 6]] * count, torch.rand(count, 4, generator=torch.Generator().manual_seed(1)), EOS, PAD)
    exact = exact_kl(model, reference, batch, 1.0)
    with torch.no_grad():
        ratio = score_tokens(model, batch, 1.0).log_probs - score_tokens(reference, batch, 1.0).log_probs
    sampled = torch.where(batch.response_mask.bool(), ratio, 0.0).sum(1)
    error = float(sampled.std()) / count**0.5
    assert exact.mean() > 10 * error, "the KL is far above the error"
    assert abs(float(exact.mean() - sampled.mean())) < 4 * error
    assert (exact_kl(reference, reference, batch, 1.0).abs() < 1e-5).all()
