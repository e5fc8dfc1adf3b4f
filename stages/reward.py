"""Train the reward model on preference pairs, so that it scores responses.

The model is the fine-tuned model with a scalar head in place of the vocabulary. trl's RewardTrainer trains it so that the
chosen response gets a higher score than the rejected one (Bradley-Terry; Ouyang et al. 2022, 2203.02155, equation 1). The
score is read at the last token, which is EOS except in truncated texts.
"""

from rlhf_sentiment.engine.start import begin

READS = ["models/sft", "data/prepared/preferences.jsonl"]
WRITES = ["models/reward", "reports/reward.json", "metrics/reward.json", "plots/reward.csv"]

if __name__ == "__main__":
    begun = begin("reward", __doc__, READS, WRITES, has_ranks=True)

from rlhf_sentiment.engine.arithmetic import Computing
from rlhf_sentiment.engine.ranks import is_main
from rlhf_sentiment.engine.records import read_rows, write_metrics, write_table
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.models.loading import load_reward_model, load_tokenizer, save
from rlhf_sentiment.reward_model import train_reward
from rlhf_sentiment.settings.checkpoint_every import CheckpointEvery
from rlhf_sentiment.settings.reward import RewardSettings
from rlhf_sentiment.training.checkpoints import Checkpoints
from rlhf_sentiment.training.dtype import settled


class Params(Computing):
    """The settings that this stage loads."""

    checkpoint_every: CheckpointEvery
    reward: RewardSettings


def main(params: Params) -> str:
    """Run the stage, and return the end of its last line."""
    quiet()
    device = set_up(params, "reward")
    kept = Checkpoints("reward", params, READS, params.checkpoint_every.reward)
    model = load_reward_model("models/sft", device, new_head=True)
    tokenizer = load_tokenizer("models/sft")
    pairs = read_rows(READS[1], dict.fromkeys(("prompt", "chosen", "rejected", "split"), str))
    settings = settled(params.reward, params.arithmetic, model, kept)
    curve, figures = train_reward(model, tokenizer, pairs, settings, params.seed, kept, READS[1])
    if not is_main():
        return ""
    save(model, tokenizer, "models/reward")
    write_table("plots/reward.csv", [row | {"dtype": settings.dtype} for row in curve])
    write_metrics("reports/reward.json", figures)
    accuracy = {name: figures[name] for name in ("accuracy", "accuracy_low", "accuracy_high")}
    write_metrics("metrics/reward.json", accuracy)
    kept.finish(WRITES)
    share, low, high = accuracy.values()
    return f"accuracy {share:.3f} on held-out pairs [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    stage(begun, Params, main, lower="reward.batch_size, or reward.max_length")
