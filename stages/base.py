"""Make the base model. Supervised fine-tuning starts from it, and the report compares the other models with it.

`base.model: scratch` trains a byte-level BPE tokenizer and a small GPT-2 on the corpus. Any other value names a folder below
models/pretrained, or a hub id at a pinned revision, which is loaded without training. In both cases the tokenizer gets a pad
token that is not its EOS.
"""

from rlhf_sentiment.engine.start import begin

READS = ["data/prepared/corpus.jsonl", "data/hashes/base.json"]
WRITES = ["models/base"]

if __name__ == "__main__":
    begun = begin("base", __doc__, READS, WRITES, has_ranks=True)

import shutil
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from rlhf_sentiment.engine.arithmetic import Computing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.inputs import require
from rlhf_sentiment.engine.messages import shown, warn
from rlhf_sentiment.engine.ranks import is_main
from rlhf_sentiment.engine.records import read_rows
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.models.loading import load_policy, load_tokenizer, save
from rlhf_sentiment.models.tokens import encode, end_of_turn, ending, habits, letters
from rlhf_sentiment.settings.base import BaseSettings
from rlhf_sentiment.settings.checkpoint_every import CheckpointEvery
from rlhf_sentiment.training.checkpoints import Checkpoints
from rlhf_sentiment.training.trainer import arguments, train

EOS, PAD = "<|endoftext|>", "<|pad|>"


class Params(Computing):
    """The settings that this stage loads."""

    checkpoint_every: CheckpointEvery
    base: BaseSettings


def main(params: Params) -> str:
    """Run the stage, and return the end of its last line."""
    quiet()
    device = set_up(params, "base")
    kept = Checkpoints("base", params, READS, params.checkpoint_every.base)
    if params.base.model == "scratch":
        texts = [row["text"] for row in read_rows(READS[0], {"text": str})]
        tokenizer = train_tokenizer(texts, params.base.vocab_size)
        model, result = train_model(texts, tokenizer, params, device, kept)
    else:
        if params.base.model.startswith("models/"):
            require(Path(params.base.model))
        name, revision = params.base.model, params.base.revision
        model, tokenizer = load_policy(name, revision=revision), load_tokenizer(name, revision)
        result = f"{params.base.model} unchanged"
    if not is_main():
        return ""
    give_pad_token(model, tokenizer)
    save(model, tokenizer, "models/base")
    if params.base.model != "scratch":
        check_saved(params.base.model, model, "models/base")
        warn_of_end(tokenizer)
    kept.finish(WRITES)
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters, {result}"


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, like GPT-2's. It can encode any text."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[EOS, PAD], show_progress=False)
    # Training needs padding on the right, so that positions start at 0. Sampling sets padding on the left itself.
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=EOS, eos_token=EOS, pad_token=PAD, padding_side="right"
    )


def train_model(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, params: Params, device: torch.device, kept: Checkpoints
) -> tuple[PreTrainedModel, str]:
    """Train a GPT-2 on whole texts, each of which ends with EOS. Texts longer than `base.context` are split into blocks.

    Returns:
        The model, and a line on its training.
    """
    base = params.base
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=base.context,
            n_embd=base.width,
            n_layer=base.layers,
            n_head=base.heads,
            # GPT-2's 0.02 is for a width of 768. Weights of this size give a narrower model's layers the same scale of outputs.
            initializer_range=0.02 * (768 / base.width) ** 0.5,
            activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    blocks = []
    for text in texts:
        ids = encode(tokenizer, text) + ending(tokenizer)
        blocks += [ids[start : start + base.context] for start in range(0, len(ids), base.context)]
    # The collator pads labels with -100, so that the loss includes EOS but no padding.
    rows = Dataset.from_dict({"input_ids": blocks, "labels": blocks})
    with arguments(device, params.seed, len(rows), base) as common:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**common, adam_beta2=base.adam_beta2),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        curve = train(trainer, kept, {"loss": "loss"})
    return model, f"trained on {len(rows)} blocks, loss {curve[0]['loss']:.2f} -> {curve[-1]['loss']:.2f} nats per token"


def check_saved(name: str, model: PreTrainedModel, folder: str | Path) -> None:
    """Load a saved model again, and remove it where it has changed.

    Raises:
        StageError: the model, saved with its pad token, cannot be loaded, or its weights differ.
    """
    try:
        weights, again = model.state_dict(), load_policy(folder).state_dict()
        wrong = None if all(torch.equal(again[key], weights[key]) for key in weights) else "its weights change"
    except StageError as error:
        wrong = str(error).split(";")[0]
    if wrong is not None:
        shutil.rmtree(folder)
        raise StageError(f"{name}, saved with its pad token, cannot be loaded again: {wrong}; name another model")


def warn_of_end(tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if the chat template ends a turn with another token than EOS. The base model would then not stop at EOS."""
    end, eos = end_of_turn(tokenizer), tokenizer.eos_token
    if end not in (None, tokenizer.eos_token_id):
        token = tokenizer.convert_ids_to_tokens(end)
        what = f"the chat template ends a turn with {shown(token)}, but the tokenizer's EOS is {shown(eos)}"
        warn("base", f"{what}, at which responses end; for messages, set eos_token in tokenizer_config.json to {shown(token)}")


def give_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a pad token that is not EOS to tokenizer, embeddings and configuration.

    With pad = EOS a reward model reads its score at the wrong token, and a mask from pad ids hides the real EOS. With pad =
    UNK the model does not see letters that the tokenizer does not know. The stop token of a chat model stays its EOS.

    Raises:
        StageError: the tokenizer has no EOS, has a special token that is a letter, or belongs to another model.
    """
    if tokenizer.eos_token_id is None:
        raise StageError("the tokenizer has no EOS token, so no response could end; set eos_token in tokenizer_config.json")
    for token in tokenizer.convert_ids_to_tokens(sorted(habits(tokenizer).special)):
        for name in (token, tokenizer.convert_tokens_to_string([token])):  # some write a line end as the token `Ċ`
            if len(name) == 1 and not letters(tokenizer, name):
                raise StageError(
                    f"the tokenizer has the special token {shown(name)}, a letter that texts would lose; choose another token"
                )
    # A pad token needs no trained weights. It is the only token that may lie beyond the model's vocabulary.
    tokens, known = set(tokenizer.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if max(tokens - {tokenizer.pad_token_id}) >= known:
        raise StageError(f"the tokenizer has {len(tokenizer)} tokens, but the model knows {known}; use its own tokenizer")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"pad_token": PAD})
    if tokenizer.pad_token_id >= known:
        model.resize_token_embeddings(tokenizer.pad_token_id + 1)
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id


if __name__ == "__main__":
    stage(begun, Params, main, lower="base.batch_size, or base.context")
