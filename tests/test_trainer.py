"""The training of base, sft and reward: batches of similar length, no attention mask, and the loss of sft."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from base import train_tokenizer
from rlhf_sentiment import reward_model
from rlhf_sentiment.models.loading import made_fast
from rlhf_sentiment.settings.reward import RewardSettings
from rlhf_sentiment.settings.sft import SFTSettings
from rlhf_sentiment.training.trainer import ByLength, _lengths, _without_mask, arguments
from sft import PackedSFTTrainer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["the film was fine"] * 3, 270)


@pytest.fixture
def model() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    size = {"vocab_size": 270, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(**size, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0))


def test_a_batch_has_texts_of_similar_length() -> None:
    lengths = [row % 20 + 1 for row in range(200)]
    order = list(ByLength(lengths, 10, seed=1, together=5))
    assert sorted(order) == list(range(200))
    spans = [[lengths[row] for row in order[start : start + 10]] for start in range(10, 200, 10)]
    assert sum(max(span) - min(span) for span in spans) / len(spans) < 6  # 16 in a random order


def test_a_pair_is_as_long_as_its_longer_side() -> None:
    assert _lengths(Dataset.from_dict({"input_ids": [[1], [1, 2, 3]]})) == [1, 3]
    assert _lengths(Dataset.from_dict({"chosen_ids": [[1], [1, 2]], "rejected_ids": [[1, 2, 3], [1]]})) == [3, 2]


def test_the_padding_on_the_right_needs_no_mask(model: GPT2LMHeadModel) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 1, 1, 1], [9, 8, 7, 1, 1]])
    mask = (ids != 1).long()
    kwargs = {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask.bool(), torch.tensor(-100))}
    gradients = []
    for each in (kwargs, _without_mask(model, (), kwargs)[1]):
        model.zero_grad()
        model(**each).loss.backward()
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    assert gradients[0].abs().max() > 0.01
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize("kind", [SFTTrainer, PackedSFTTrainer])
def test_the_loss_of_sft_is_that_of_trl(
    kind: type[SFTTrainer], model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Dataset.from_dict(
        {"input_ids": [[5, 6, 7, 8], [5, 9, 0], [7, 6, 5, 4, 3]], "completion_mask": [[0, 0, 1, 1], [0, 1, 1], [0, 1, 1, 1, 1]]}
    )
    settings = SFTSettings(epochs=1, batch_size=3, learning_rate=1e-3, dtype="float32", max_length=8, cut=False, lora=None)
    with arguments(torch.device("cpu"), 1, 3, settings) as common:
        trainer: Any = kind(
            model=model,
            args=SFTConfig(**common, max_length=8, completion_only_loss=True),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        (batch,) = trainer.get_train_dataloader()
        labels, logits = batch["labels"][:, 1:], model(batch["input_ids"]).logits[:, :-1]
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        right = (logits.argmax(dim=-1) == labels)[labels != -100].float().mean()
        loss = trainer.compute_loss(model, batch)
    assert float(loss.detach()) == pytest.approx(float(nats.detach().sum() / 8), rel=1e-5)
    assert trainer._metrics["train"]["mean_token_accuracy"] == [pytest.approx(float(right))]


def test_the_loss_of_the_reward_model_is_that_of_trl(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Dataset.from_dict({"chosen_ids": [[5, 6, 7, 8], [5, 9, 0]], "rejected_ids": [[5, 6], [5, 9, 8, 7, 6, 5, 4]]})
    settings = RewardSettings(epochs=1, batch_size=2, learning_rate=1e-3, dtype="float32", max_length=8, cut=False, lora=None)
    found = []
    for kind in (RewardTrainer, reward_model.PackedRewardTrainer):
        torch.manual_seed(1)
        size = {"vocab_size": 270, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 2, "num_labels": 1}
        ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
        model = made_fast(GPT2ForSequenceClassification(GPT2Config(**size, **ids, initializer_range=0.2)))
        with arguments(torch.device("cpu"), 1, 2, settings) as common:
            trainer: Any = kind(
                model=model, args=RewardConfig(**common, max_length=8), train_dataset=rows, processing_class=tokenizer
            )
            (batch,) = trainer.get_train_dataloader()
            trainer.compute_loss(model, batch).backward()
        gradient = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        found.append((gradient, trainer._metrics["train"]))
    assert found[0][0].abs().max() > 0.01
    torch.testing.assert_close(*(gradient for gradient, _ in found), rtol=1e-4, atol=1e-6)
    for name in ("accuracy", "margin"):
        assert found[1][1][name] == pytest.approx(found[0][1][name], rel=1e-5)
