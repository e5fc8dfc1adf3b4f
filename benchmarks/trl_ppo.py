"""Time the PPO of trl 1.12.0, the last release with PPO, with the options of ppo.py.

    python3.11 -m venv /tmp/trl && /tmp/trl/bin/pip install torch==2.13.0 trl==1.12.0
    /tmp/trl/bin/python benchmarks/trl_ppo.py --layers 6 --width 768 --heads 12 --batch 16 --prompt 16 --response 48 [--bf16]

It needs an environment of its own. The weights are random, and the value model is separate. Each micro-batch is one
accumulation step. Nothing is logged or saved. trl samples all tokens up to the limit, also after EOS, so `--eos-rate` changes
its results and not its speed. The last line is the result, as JSON.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from lengths import let_end
from tokenizers import Tokenizer, models
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

SIZES = {"layers": 6, "width": 768, "heads": 12, "vocab": 50257, "batch": 16, "micro": 16, "minibatches": 1}
SIZES |= {"prompt": 16, "response": 48, "epochs": 4, "updates": 3}


class Clock(TrainerCallback):
    """A callback that records the time after each update."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--eos-rate", type=float, default=0.0, help="probability of EOS at each token (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="trl's own bf16 flag")
    size = parser.parse_args()
    eos, pad = size.vocab - 2, size.vocab - 1
    words = {f"w{number}": number for number in range(eos)} | {"<eos>": eos, "<pad>": pad}
    wordlevel = Tokenizer(models.WordLevel(words, "w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=wordlevel, eos_token="<eos>", pad_token="<pad>")  # noqa: S106 (tokens, not passwords)
    config = GPT2Config(
        vocab_size=size.vocab,
        n_positions=max(1024, size.prompt + size.response),
        n_layer=size.layers,
        n_embd=size.width,
        n_head=size.heads,
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=pad,
        num_labels=1,
    )
    torch.manual_seed(0)
    rows = Dataset.from_dict({"input_ids": torch.randint(0, eos, (2 * size.batch, size.prompt)).tolist()})
    policy, reference = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
    if size.eos_rate:
        let_end(policy, eos, size.eos_rate)
    reference.load_state_dict(policy.state_dict())
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=scratch,
                use_cpu=not torch.cuda.is_available(),
                bf16=size.bf16,
                per_device_train_batch_size=size.micro,
                gradient_accumulation_steps=size.batch // size.minibatches // size.micro,
                num_mini_batches=size.minibatches,
                num_ppo_epochs=size.epochs,
                total_episodes=size.batch * (1 + size.updates),
                response_length=size.response,
                local_rollout_forward_batch_size=size.batch,
                temperature=1.0,
                learning_rate=1e-8,
                stop_token="eos",  # noqa: S106 (a token, not a password)
                gradient_checkpointing=False,
                num_sample_generations=0,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=GPT2ForSequenceClassification(config),
            value_model=GPT2ForSequenceClassification(config),
            train_dataset=rows,
            eval_dataset=rows,
            callbacks=[clock],
        )
        trainer.train()
    seconds = statistics.median(after - before for before, after in zip(clock.times, clock.times[1:], strict=False))
    figures = {
        "s_per_update": round(seconds, 3),
        "samples_per_s": round(size.batch / seconds, 3),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
