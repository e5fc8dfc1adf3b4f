"""Time PPO updates and measure memory, for a GPT-2 of a given size.

    python benchmarks/ppo.py --layers 6 --width 768 --heads 12 --vocab 50257 --batch 16 --prompt 16 --response 48 --epochs 4

The code is the code of the stage. Settings without an option come from params.yaml. The weights are random, because speed does
not depend on them. With `--eos-rate 0.03`, lengths are geometric: each token is EOS with this probability. Without it, most
responses reach their full length. The first update is not counted. The last line is the result, as JSON:

- the median seconds per update, and of its rollout, scoring and training;
- with `--floor`, the floating-point operations of the matrix products of one more update, and the seconds that these products
  take by themselves;
- responses per second, and the mean length of responses in tokens;
- the peak resident memory of the host, and the growth of this peak after the first update.
"""
# ruff: noqa: E402 (the variables of arithmetic are set before torch is loaded)

import argparse
import copy
import json
import os
import resource
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))
from rlhf_sentiment.engine.arithmetic import Arithmetic, Computing, pin

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as engine/start.py
early = argparse.ArgumentParser(add_help=False)
early.add_argument("--arithmetic", choices=["fast", "portable"], default="fast", help="default: %(default)s")
arithmetic = early.parse_known_args()[0].arithmetic
pin(Arithmetic(arithmetic=arithmetic, threads=2 if arithmetic == "portable" else "auto"), "benchmark")

import torch
from floor import Products
from lengths import let_end
from pydantic import ValidationError
from tqdm import tqdm
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from rlhf_sentiment.engine.params import load
from rlhf_sentiment.engine.stage import keep_freed_memory
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.models.loading import made_fast
from rlhf_sentiment.ppo.actors import Actors, critic_of, make_optimizer
from rlhf_sentiment.ppo.loop import make_accelerator
from rlhf_sentiment.ppo.step import assess, learn, sample
from rlhf_sentiment.rewards import reward_of_model
from rlhf_sentiment.sampling.rollout import uniforms
from rlhf_sentiment.settings.ppo import PPOSettings
from rlhf_sentiment.training.checkpoints import Checkpoints
from rlhf_sentiment.training.dtype import settled

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
SIZES = {
    "layers": 6,
    "width": 768,
    "heads": 12,
    "vocab": 50257,
    "batch": 16,
    "micro": 16,
    "minibatches": 1,
    "prompt": 16,
    "response": 48,
    "epochs": 4,
}


class Params(Computing):
    ppo: PPOSettings


def positive(text: str) -> int:
    """Return a whole number from 1, as an option of argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def now(device: torch.device) -> float:
    """Wait until the device has finished its work, and return the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, parents=[early], formatter_class=formatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=positive, default=default, help="default: %(default)s")
    parser.add_argument("--updates", type=positive, default=3, help="updates that are counted (default: %(default)s)")
    parser.add_argument("--critic", choices=["separate", "shared"], default="separate", help="default: %(default)s")
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="default: %(default)s")
    parser.add_argument("--eos-rate", type=float, default=0.0, help="probability of EOS at each token (default: %(default)s)")
    parser.add_argument("--floor", action="store_true", help="measure the matrix products, too")
    size = parser.parse_args()
    params = load(Params, PARAMS)
    changed = {
        "batch_size": size.batch,
        "micro_batch_size": size.micro,
        "minibatches": size.minibatches,
        "ppo_epochs": size.epochs,
        "max_new_tokens": size.response,
        "critic": size.critic,
        "dtype": size.dtype,
        "learning_rate": 1e-8,  # the lengths should stay as they are
    }
    if size.vocab < 3:
        parser.error(f"--vocab is {size.vocab}; it must be at least 3: a token, EOS and padding")
    if size.width % size.heads:
        parser.error(f"--width {size.width} must be a multiple of --heads {size.heads}")
    if not 0 <= size.eos_rate < 1:
        parser.error("--eos-rate must be at least 0 and below 1")
    try:
        settings = PPOSettings.model_validate(params.ppo.model_dump() | changed)
        how = {"arithmetic": size.arithmetic, "threads": torch.get_num_threads(), "ppo": settings}
        params = Params(**params.model_dump() | how)
    except ValidationError as error:
        parser.error("; ".join(problem["msg"] for problem in error.errors()))
    keep_freed_memory()
    quiet()
    device = set_up(params, "benchmark")
    eos, pad = size.vocab - 2, size.vocab - 1
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
    policy = made_fast(GPT2LMHeadModel(config)).to(device).eval()
    reward = reward_of_model(made_fast(GPT2ForSequenceClassification(config)).to(device).eval(), settings.missing_eos_penalty)
    actors = Actors(
        policy=policy,
        reference=copy.deepcopy(policy).requires_grad_(False),
        critic=critic_of(settings, policy, reward),
        reward=reward,
        eos=eos,
        pad=pad,
    )
    if size.eos_rate:
        let_end(policy, eos, size.eos_rate)
        actors.reference.load_state_dict(policy.state_dict())
    settings = settled(settings, size.arithmetic, policy, Checkpoints("benchmark", params, [], every=None))
    optimizer = make_optimizer(actors, settings)
    accelerator = make_accelerator(device)
    generator = torch.Generator().manual_seed(params.seed)
    seconds: list[list[float]] = []
    peaks: list[float] = []
    lengths: list[float] = []
    products = Products()
    for step in tqdm(range(1 + size.updates + size.floor), unit=" updates", disable=None):
        prompts = torch.randint(0, eos, (size.batch, size.prompt), generator=generator).tolist()
        noise = torch.stack([uniforms(size.response, params.seed, step, row) for row in range(size.batch)])
        if step > size.updates:
            with products:
                experience = assess(actors, sample(actors, prompts, noise, settings), settings, settings.kl_coef)
                learn(actors, optimizer, accelerator, experience, settings, (params.seed, step))
            break
        clock = [now(device)]
        batch = sample(actors, prompts, noise, settings)
        clock.append(now(device))
        experience = assess(actors, batch, settings, settings.kl_coef)
        clock.append(now(device))
        learn(actors, optimizer, accelerator, experience, settings, (params.seed, step))
        clock.append(now(device))
        seconds.append([clock[3] - clock[0], *(after - before for before, after in pairwise(clock))])
        lengths.append(float(batch.response_mask.sum(dim=1).float().mean()))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20))
    update, rollout, scoring, training = (statistics.median(part) for part in zip(*seconds[1:], strict=True))
    figures = vars(size) | {
        "dtype": settings.dtype,
        "s_per_update": round(update, 3),
        "samples_per_s": round(size.batch / update, 3),
        "s_rollout": round(rollout, 3),
        "s_scoring": round(scoring, 3),
        "s_training": round(training, 3),
        "response_tokens": round(statistics.mean(lengths[1:]), 1),
        **(
            {
                "tflop": float(f"{products.flop() / 1e12:.4g}"),
                "tflop_attention": float(f"{products.attention_flop / 1e12:.4g}"),
                "s_floor": round(products.seconds(device), 3),
            }
            if size.floor
            else {}
        ),
        "peak_rss_gib": round(peaks[-1], 3),
        "peak_growth_gib": round(peaks[-1] - peaks[0], 3),
        "millions_of_parameters": round(policy.num_parameters() / 1e6, 1),
        "threads": torch.get_num_threads(),
        "device": device.type,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
