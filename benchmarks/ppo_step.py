"""Time PPO steps and measure memory, for a GPT-2 of a given size under the settings of a params file.

    python benchmarks/ppo_step.py --params profiles/distilgpt2-imdb.yaml

The weights are random (speed does not depend on them), so responses go to their full length. Prints one JSON line: seconds
per PPO step (median over the steps after the first), responses per second, and the peak of resident memory.
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


class Params(Settings):
    seed: Seed
    device: Device
    ppo: PPOSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, help="PPO steps, the first of which is not counted (default: 4)")
    for name, size in {"layers": 6, "width": 768, "heads": 12, "vocab": 50258, "prompt": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"default: {size}")
    arguments = parser.parse_args()
    if arguments.steps < 2:
        parser.error("--steps: at least 2")
    params = load(Params, arguments.params)
    settings, device = params.ppo, resolve_device(params.device)
    quiet()
    make_deterministic(params.seed)

    eos, pad = arguments.vocab - 2, arguments.vocab - 1
    config = GPT2Config(
        vocab_size=arguments.vocab,
        n_layer=arguments.layers,
        n_embd=arguments.width,
        n_head=arguments.heads,
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=pad,
        num_labels=1,
    )
    policy = GPT2LMHeadModel(config).to(device).eval()
    reward = GPT2ForSequenceClassification(config).to(device).eval()
    actors = Actors(
        policy=policy,
        reference=copy.deepcopy(policy).requires_grad_(False),
        critic=Critic.from_reward_model(copy.deepcopy(reward)).eval(),
        reward=reward.requires_grad_(False),
        eos=eos,
        pad=pad,
    )
    optimizer = torch.optim.AdamW([*policy.parameters(), *actors.critic.parameters()], lr=settings.learning_rate)
    accelerator = Accelerator(cpu=device.type == "cpu")
    generator = torch.Generator().manual_seed(params.seed)
    seconds = []
    for step in tqdm(range(arguments.steps), unit=" steps", disable=None):
        prompts = torch.randint(0, eos, (settings.batch_size, arguments.prompt), generator=generator).tolist()
        noise = torch.stack([uniforms(settings.max_new_tokens, params.seed, step, row) for row in range(len(prompts))])
        start = time.perf_counter()
        experience = collect(actors, prompts, noise, settings, settings.kl_coef)
        learn(actors, optimizer, accelerator, experience, settings, (params.seed, step))
        seconds.append(time.perf_counter() - start)
    median, peak = statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "millions_of_parameters": round(policy.num_parameters() / 1e6, 1),
        "seconds_per_step": round(median, 2),
        "responses_per_second": round(settings.batch_size / median, 2),
        "peak_resident_gib": round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
