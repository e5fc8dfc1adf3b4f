"""Fine-tune the base model on demonstrations, so that it answers a prompt with one response and stops.

trl's SFTTrainer trains on rows of prompt and response. The loss includes only the response and its EOS. A row that is too long
is left out, or truncated, and then has no EOS. Dropout is that of the base model's configuration.
"""

from rlhf_sentiment.engine.start import begin

READS = ["models/base", "data/prepared/sft.jsonl"]
WRITES = ["models/sft", "reports/sft.json", "metrics/sft.json", "plots/sft.csv"]

if __name__ == "__main__":
    begun = begin("sft", __doc__, READS, WRITES, has_ranks=True)

from typing import Any

from datasets import Dataset
from torch.nn import functional
from trl import SFTConfig, SFTTrainer

from rlhf_sentiment.engine.arithmetic import Computing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.ranks import is_main
from rlhf_sentiment.engine.records import read_rows, write_metrics, write_table
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.models.adapters import POLICY, add_adapter
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.models.forward import logits
from rlhf_sentiment.models.loading import load_policy, load_tokenizer, refuse_longer, save
from rlhf_sentiment.models.tokens import encode_example
from rlhf_sentiment.settings.checkpoint_every import CheckpointEvery
from rlhf_sentiment.settings.sft import SFTSettings
from rlhf_sentiment.training.checkpoints import Checkpoints
from rlhf_sentiment.training.dtype import settled
from rlhf_sentiment.training.shares import mean_of, through, weight_of
from rlhf_sentiment.training.trainer import arguments, train


class Params(Computing):
    """The settings that this stage loads."""

    checkpoint_every: CheckpointEvery
    sft: SFTSettings


def main(params: Params) -> str:
    """Run the stage, and return the end of its last line."""
    quiet()
    device = set_up(params, "sft")
    kept = Checkpoints("sft", params, READS, params.checkpoint_every.sft)
    model, tokenizer = load_policy("models/base", device), load_tokenizer("models/base")

    longest = params.sft.max_length
    refuse_longer(model, longest, "sft.max_length")

    # Rows that are too long are left out or truncated, and counted.
    prompts, responses, too_long = [], [], 0
    for number, row in enumerate(read_rows(READS[1], {"prompt": str, "response": str}), start=1):
        where = f"{READS[1]}, row {number}"
        prompt, response, fits = encode_example(tokenizer, row, row["response"], longest, params.sft.cut, where)
        too_long += not fits
        if response:
            prompts.append(prompt)
            responses.append(response)
    if not prompts:
        raise StageError(f"{READS[1]}: no row has at most {longest} tokens; raise sft.max_length")
    rows = Dataset.from_dict(
        {
            "input_ids": [prompt + response for prompt, response in zip(prompts, responses, strict=True)],
            "completion_mask": [
                [0] * len(prompt) + [1] * len(response) for prompt, response in zip(prompts, responses, strict=True)
            ],
        }
    )

    settings = settled(params.sft, params.arithmetic, model, kept)
    if settings.lora is not None:
        add_adapter(model, settings.lora, POLICY, "models/base", "sft.lora")
    with arguments(device, params.seed, len(rows), settings, settings.dtype) as common:
        trainer = PackedSFTTrainer(
            model=model,
            args=SFTConfig(**common, max_length=longest, completion_only_loss=True),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        curve = train(trainer, kept, {"loss": "loss", "mean_token_accuracy": "token_accuracy"})

    if not is_main():
        return ""
    save(model, tokenizer, "models/sft")
    write_table("plots/sft.csv", [row | {"dtype": settings.dtype} for row in curve])
    last = curve[-1]
    write_metrics("reports/sft.json", {"rows": len(rows), "rows_too_long": too_long, **last})
    write_metrics("metrics/sft.json", {name: last[name] for name in ("loss", "token_accuracy")})
    kept.finish(WRITES)
    return f"loss {curve[0]['loss']:.3f} -> {last['loss']:.3f} nats per token"


class PackedSFTTrainer(SFTTrainer):
    """A trainer whose loss computes no padding, and projects only the tokens of the responses to the vocabulary.

    trl's own loss saves memory in another way: it computes the logits in parts, and again for the gradient.
    """

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Return the mean loss of the response tokens, and note the accuracy."""
        following = functional.pad(inputs["labels"], (0, 1), value=-100)[:, 1:]  # the token after each position
        kept = following != -100
        found = through(model, logits, inputs["input_ids"], inputs["attention_mask"], kept)
        weight = weight_of(len(found))
        right = (found.argmax(dim=-1) == following[kept]).float().mean()
        self._metrics["train"]["mean_token_accuracy"].append(mean_of(right.item() * weight))
        return functional.cross_entropy(found.float(), following[kept]) * weight


if __name__ == "__main__":
    stage(begun, Params, main, lower="sft.batch_size, or sft.max_length")
