"""Time PPO updates and measure memory, for a GPT-2 of a given size.

    python benchmarks/ppo.py --layers 6 --width 768 --heads 12 --vocab 50257 --batch 16 --prompt 16 --response 48 --epochs 4

The code is that of the stage; settings that have no flag are those of params.yaml. The weights are random (speed does not
depend on them), so responses go to their full length. Prints one JSON line, last: seconds per update (median of the updates
after a first, uncounted one), responses per second, and the peak of resident memory.
"""

import argparse
import copy
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))
from rlhf_sentiment.config import Device, Seed, Settings, load
from rlhf_sentiment.learner import Actors, collect, learn
from rlhf_sentiment.models import Critic, make_deterministic, quiet, resolve_device
from rlhf_sentiment.rollout import uniforms
from rlhf_sentiment.settings.ppo import PPOSettings

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
SIZES = {"layers": 6, "width": 768, "heads": 12, "vocab": 50257, "batch": 16, "prompt": 16, "response": 48, "epochs": 4}


class Params(Settings):
    seed: Seed
    device: Device
    ppo: PPOSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--updates", type=int, default=3, help="updates that are counted (default: %(default)s)")
    size = parser.parse_args()
    params = load(Params, PARAMS)
    changed = {
        "batch_size": size.batch,
        "micro_batch_size": size.batch,
        "minibatches": 1,
        "ppo_epochs": size.epochs,
        "max_new_tokens": size.response,
    }
    settings = PPOSettings.model_validate(params.ppo.model_dump() | changed)
    device = resolve_device(params.device)
    quiet()
    make_deterministic(params.seed)
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
    policy = GPT2LMHeadModel(config).to(device).eval()
    reward = GPT2ForSequenceClassification(config).to(device).eval().requires_grad_(False)
    actors = Actors(
        policy=policy,
        reference=copy.deepcopy(policy).requires_grad_(False),
        critic=Critic.from_reward_model(copy.deepcopy(reward)).requires_grad_(True).eval(),
        reward=reward,
        eos=eos,
        pad=pad,
    )
    optimizer = torch.optim.AdamW([*policy.parameters(), *actors.critic.parameters()], lr=settings.learning_rate)
    accelerator = Accelerator(cpu=device.type == "cpu")
    generator = torch.Generator().manual_seed(params.seed)
    seconds = []
    for step in tqdm(range(1 + size.updates), unit=" updates", disable=None):
        prompts = torch.randint(0, eos, (size.batch, size.prompt), generator=generator).tolist()
        noise = torch.stack([uniforms(size.response, params.seed, step, row) for row in range(size.batch)])
        start = time.perf_counter()
        experience = collect(actors, prompts, noise, settings, settings.kl_coef)
        learn(actors, optimizer, accelerator, experience, settings, (params.seed, step))
        seconds.append(time.perf_counter() - start)
    median, peak = statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "s_per_update": round(median, 2),
        "samples_per_s": round(size.batch / median, 3),
        "peak_rss_gib": round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2),
        "millions_of_parameters": round(policy.num_parameters() / 1e6, 1),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
