"""The reward model: encode preference pairs, train with trl, and measure the accuracy on held-out pairs."""

from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from .engine.errors import StageError
from .engine.messages import warn
from .engine.ranks import working
from .engine.records import Row
from .models.adapters import REWARD, add_adapter, set_dropout
from .models.devices import precision
from .models.exchange import joined, own_rows, whole
from .models.forward import reward_scores
from .models.loading import refuse_longer
from .models.tokens import encode_example, has_template
from .settings.reward import RewardSettings
from .training.checkpoints import Checkpoints
from .training.shares import mean_of, through, weight_of
from .training.trainer import arguments, train

Encoded = dict[str, list[list[int]]]


def train_reward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[Row],
    settings: RewardSettings,
    seed: int,
    kept: Checkpoints,
    source: str,
) -> tuple[list[Row], Row]:
    """Train `model` on the pairs of the train split, so that the chosen response gets a higher score than the rejected one.

    Args:
        model: models/sft as a sequence classifier with one output. Its weights change, or it gets an adapter.
        tokenizer: of the model.
        pairs: rows of prompt, chosen, rejected and split (train or validation).
        settings: the section `reward`, with a dtype that is not auto.
        seed: decides the order of the pairs.
        kept: the checkpoints of this run.
        source: the name of the pairs in messages.

    Returns:
        The curve of the training, and the metrics of `measure` with the counts of pairs.

    Raises:
        StageError: a split has no pair, or none of at most `settings.max_length` tokens per side; the positions are too few.
    """
    refuse_longer(model, settings.max_length, "reward.max_length")
    encoded, too_long = encode_splits(pairs, tokenizer, settings, source)
    if settings.lora is not None:
        add_adapter(model, settings.lora, REWARD, "models/sft", "reward.lora")
    train_rows = Dataset.from_dict(encoded["train"])
    with arguments(model.device, seed, len(train_rows), settings, settings.dtype) as common:
        trainer = PackedRewardTrainer(
            model=model,
            args=RewardConfig(**common, max_length=settings.max_length),
            train_dataset=train_rows,
            processing_class=tokenizer,
        )
        if settings.lora is not None:
            set_dropout(model, settings.lora.dropout)
        curve = train(trainer, kept, {"loss": "loss", "accuracy": "accuracy", "margin": "margin"})
    measured = measure(model, tokenizer, encoded["validation"])
    counts = {
        "pairs": len(train_rows),
        "pairs_held_out": len(encoded["validation"]["chosen_ids"]),
        "pairs_too_long": too_long,
    }
    return curve, counts | measured


class PackedRewardTrainer(RewardTrainer):
    """trl's trainer, with scores for which no padding is computed."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the mean loss of the pairs, -log sigmoid(chosen - rejected), and note accuracy and margin."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]  # the chosen sides, then the rejected ones
        with precision("bfloat16" if self.args.bf16 else "float32", ids.device):
            chosen, rejected = through(model, reward_scores, ids, mask).chunk(2)
        weight = weight_of(len(chosen))
        for name, figure in (("accuracy", (chosen > rejected).float()), ("margin", chosen - rejected)):
            self._metrics["train"][name].append(mean_of(figure.mean().item() * weight))
        return -functional.logsigmoid(chosen - rejected).mean() * weight


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Encoded) -> Row:
    """Return how often the model prefers the chosen response of held-out pairs.

    Returns:
        accuracy, with its 95 % interval (Wilson's) accuracy_low and accuracy_high. accuracy_of_longer, how often the longer
        response was the chosen one, in tokens that the model reads (a tie counts one half). margin, the mean of the chosen
        score minus the rejected score, and score_std. Scores have no unit.
    """
    from scipy.stats import binomtest  # its import takes a third of a second, which only this measurement needs

    chosen, rejected = (score(model, held_out[side], tokenizer) for side in ("chosen_ids", "rejected_ids"))
    right = int((chosen > rejected).sum())
    sides = zip(held_out["chosen_ids"], held_out["rejected_ids"], strict=True)
    by_length = [(len(one) > len(other)) + (len(one) == len(other)) / 2 for one, other in sides]
    interval: Any = binomtest(right, len(chosen)).proportion_ci(method="wilson")
    return {
        "accuracy": right / len(chosen),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "accuracy_of_longer": sum(by_length) / len(by_length),
        "margin": float((chosen - rejected).mean()),
        "score_std": float(torch.cat([chosen, rejected]).std()),
    }


def encode_splits(
    pairs: list[Row], tokenizer: PreTrainedTokenizerBase, settings: RewardSettings, source: str
) -> tuple[dict[str, Encoded], int]:
    """Return the encoded pairs of the splits train and validation, and the number of pairs that are too long.

    A warning states that number. trl itself would drop these pairs silently.

    Raises:
        StageError: a split has no pair, or none of at most `settings.max_length` tokens per side.
    """
    encoded: dict[str, Encoded] = {}
    too_long = 0
    for split in ("train", "validation"):
        encoded[split], longer = encode_pairs(pairs, split, tokenizer, settings, source)
        too_long += longer
    for split, rows in encoded.items():
        if not any(row["split"] == split for row in pairs):
            raise StageError(f"{source}: no pair is in the split {split}")
        if not rows["chosen_ids"]:
            raise StageError(
                f"{source}: no {split} pair has at most {settings.max_length} tokens per side; raise reward.max_length, or set "
                "reward.cut"
            )
    if too_long:
        what = "truncated there" if settings.cut else "left out; raise reward.max_length, or set reward.cut"
        which = f"{too_long} of {len(pairs)} pairs are longer than reward.max_length {settings.max_length}"
        warn("reward", f"{which}, and are {what}")
    return encoded, too_long


def encode_pairs(
    pairs: list[Row], split: str, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings, source: str
) -> tuple[Encoded, int]:
    """Return the token ids (prompt, response, EOS) of both sides of a split's pairs, and the number of pairs that are too long.

    Pairs that are too long are truncated to `settings.max_length` tokens, or left out.

    Raises:
        StageError: the chat template of the tokenizer refuses the messages of a pair. The message names `source` and the row.
    """
    columns: Encoded = {"chosen_ids": [], "rejected_ids": []}
    too_long = 0
    for number, row in enumerate(pairs, start=1):
        if row["split"] != split:
            continue
        where = f"{source}, row {number}"
        both = (_side(row, name, tokenizer) for name in ("chosen", "rejected"))
        sides = [encode_example(tokenizer, *side, settings.max_length, settings.cut, where) for side in both]
        too_long += not all(fits for _, _, fits in sides)
        if all(response for _, response, _ in sides):
            for column, (prompt, response, _) in zip(columns, sides, strict=True):
                columns[column].append(prompt + response)
    return columns, too_long


def _side(row: Row, name: str, tokenizer: PreTrainedTokenizerBase) -> tuple[Row, str]:
    """Return the prompt and the response of one side of a pair.

    The sides of a pair that is made from labels may have messages of their own, which end with the response.
    """
    *before, last = row.get(f"{name}_messages") or [None]
    asked = {"prompt": row["prompt"], "messages": before}
    return (asked, last["content"]) if has_template(tokenizer, asked) else (row, row[name])


@torch.no_grad()
def score(model: PreTrainedModel, sequences: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the model's score of each sequence of token ids: [N] -> (N,)."""
    model.eval()
    scores = []
    own = own_rows(len(sequences)).tolist()
    for start in range(0, len(own), 64):
        part = [sequences[row] for row in own[start : start + 64]]
        batch = tokenizer.pad({"input_ids": part}, return_tensors="pt").to(model.device)
        scores.append(reward_scores(model, batch["input_ids"], batch["attention_mask"]).cpu())
        working()
    return whole(joined(scores), len(sequences))
