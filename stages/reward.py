"""The reward model: a score for a response, learned from preference pairs.

trl's RewardTrainer: the fine-tuned model with a scalar head in place of the vocabulary, trained so that the chosen
response scores above the rejected one (Bradley-Terry; Ouyang et al. 2022, 2203.02155, equation 1). The score is read at
the last token: EOS, or the one before the cut where a long text is cut to the length that responses have.
"""

import torch
from datasets import Dataset
from scipy.stats import binomtest
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from rlhf_sentiment.checkpoints import Checkpoints
from rlhf_sentiment.config import Device, Seed, Settings
from rlhf_sentiment.models import (
    encode_example,
    load_reward_model,
    load_tokenizer,
    make_deterministic,
    quiet,
    refuse_longer,
    resolve_device,
    reward_scores,
    save,
)
from rlhf_sentiment.records import Row, read_rows, write_metrics, write_table
from rlhf_sentiment.run import StageError, stage
from rlhf_sentiment.settings.checkpoints import CheckpointEvery
from rlhf_sentiment.settings.report import ReportTo
from rlhf_sentiment.settings.reward import RewardSettings
from rlhf_sentiment.training import arguments, train

READS = ["models/sft", "data/prepared/preferences.jsonl"]
WRITES = ["models/reward", "metrics/reward.json", "plots/reward.csv"]


class Params(Settings):
    seed: Seed
    device: Device
    report_to: ReportTo
    checkpoint_every: CheckpointEvery
    reward: RewardSettings


def main(params: Params) -> str:
    quiet()
    make_deterministic(params.seed)
    device = resolve_device(params.device)
    kept = Checkpoints("reward", params, READS, params.checkpoint_every.reward)
    model, tokenizer = load_reward_model("models/sft", device, new_head=True), load_tokenizer("models/sft")

    refuse_longer(model, params.reward.max_length, "reward.max_length")

    # 1. Pairs, encoded; a side that is too long is cut, or its pair left out, and counted (trl would drop it in silence).
    pairs = read_rows("data/prepared/preferences.jsonl", dict.fromkeys(("prompt", "chosen", "rejected", "split"), str))
    encoded, too_long = {}, 0
    for split in ("train", "validation"):
        encoded[split], longer = encode_pairs(pairs, split, tokenizer, params.reward)
        too_long += longer
    for split, rows in encoded.items():
        if not rows["chosen_ids"]:
            raise StageError(
                f"data/prepared/preferences.jsonl: no {split} pair has at most {params.reward.max_length} tokens a side; "
                "raise reward.max_length"
            )
    train_rows = Dataset.from_dict(encoded["train"])

    # 2. Train.
    with arguments(device, params.seed, len(train_rows), params.reward, params.report_to) as common:
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(**common, max_length=params.reward.max_length),
            train_dataset=train_rows,
            processing_class=tokenizer,
        )
        curve = train(trainer, kept, {"loss": "loss", "accuracy": "accuracy", "margin": "margin"})

    # 3. How often it prefers what was preferred, on pairs that it has not seen.
    chosen, rejected = (score(model, encoded["validation"][side], tokenizer) for side in ("chosen_ids", "rejected_ids"))
    right = int((chosen > rejected).sum())
    interval = binomtest(right, len(chosen)).proportion_ci(method="wilson")

    # 4. Write.
    save(model, tokenizer, "models/reward")
    write_table("plots/reward.csv", curve)
    metrics = {
        "pairs": len(train_rows),
        "pairs_held_out": len(chosen),
        "pairs_too_long": too_long,
        "accuracy": right / len(chosen),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "margin": float((chosen - rejected).mean()),
        "score_std": float(torch.cat([chosen, rejected]).std()),
    }
    write_metrics("metrics/reward.json", metrics)
    kept.finish(WRITES)
    return f"accuracy {metrics['accuracy']:.3f} on held-out pairs [{interval.low:.3f}, {interval.high:.3f}]"


def encode_pairs(
    pairs: list[Row], split: str, tokenizer: PreTrainedTokenizerBase, settings: RewardSettings
) -> tuple[dict[str, list[list[int]]], int]:
    """Token ids of prompt, response and EOS of both sides of the pairs of `split`, and how many pairs are too long.

    Those are cut to `settings.max_length`, or left out.
    """
    columns: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
    too_long = 0
    for row in pairs:
        if row["split"] != split:
            continue
        sides = [
            encode_example(tokenizer, row["prompt"], row[side], settings.max_length, settings.cut)
            for side in ("chosen", "rejected")
        ]
        too_long += not all(fits for _, _, fits in sides)
        if all(response for _, response, _ in sides):
            for column, (prompt, response, _) in zip(columns, sides, strict=True):
                columns[column].append(prompt + response)
    return columns, too_long


@torch.no_grad()
def score(model: PreTrainedModel, sequences: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """The score of each sequence. (N,)"""
    model.eval()
    scores = []
    for start in range(0, len(sequences), 64):
        batch = tokenizer.pad({"input_ids": sequences[start : start + 64]}, return_tensors="pt").to(model.device)
        scores.append(reward_scores(model, batch["input_ids"], batch["attention_mask"]).cpu())
    return torch.cat(scores)


if __name__ == "__main__":
    stage("reward", __doc__, Params, main, READS, WRITES, lower="reward.batch_size, or reward.max_length")
