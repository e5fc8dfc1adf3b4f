"""Record what the formulas of trl 1.12.0, the last release with a PPO trainer, give for a small fixed batch.

    python3.11 -m venv /tmp/trl && /tmp/trl/bin/pip install torch==2.13.0 trl==1.12.0
    /tmp/trl/bin/python tests/golden/record.py > tests/golden/trl-1.12.0.json

The equations of trl are in the middle of `PPOTrainer.train`. This script finds their lines in the installed source by the
comments and statements around them. It then executes the lines on our numbers. tests/test_golden.py compares the results.
"""

import inspect
import json
import textwrap
from types import SimpleNamespace

import torch
import trl
from trl.experimental.ppo import ppo_trainer

ARGS = SimpleNamespace(
    kl_estimator="k1", kl_coef=0.2, gamma=0.97, lam=0.9, whiten_rewards=False, cliprange=0.2, cliprange_value=0.2, vf_coef=0.1
)
ROWS, WIDTH = 4, 5


def lines(start: str, end: str) -> str:
    """Return the lines of `PPOTrainer.train` from the line with `start` to the line before the line with `end`."""
    source = inspect.getsource(ppo_trainer.PPOTrainer.train).splitlines()
    first = next(number for number, line in enumerate(source) if start in line)
    last = next(number for number, line in enumerate(source) if number > first and end in line)
    return textwrap.dedent("\n".join(source[first:last]))


def main() -> None:
    assert trl.__version__ == "1.12.0", trl.__version__
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    old = -draw(ROWS, WIDTH).abs() - 0.5
    inputs = {
        "logprobs": old,
        "ref_logprobs": old + draw(ROWS, WIDTH, scale=0.3),
        "values": draw(ROWS, WIDTH),
        "scores": draw(ROWS),
        "new_logprobs": old + draw(ROWS, WIDTH, scale=0.3),
        "vpred": draw(ROWS, WIDTH),
    }
    # `last` is the index of the last token: trl counts lengths in this way. Ragged responses test the figures with equal masks.
    recorded = {}
    for name, last in (("whole", [4, 4, 4, 4]), ("ragged", [4, 1, 0, 2])):
        sequence_lengths = torch.tensor(last)
        places = torch.arange(WIDTH).repeat(ROWS, 1)
        space = {key: tensor.clone() for key, tensor in inputs.items()} | {
            "torch": torch,
            "args": ARGS,
            "responses": torch.zeros(ROWS, WIDTH, dtype=torch.long),
            "sequence_lengths": sequence_lengths,
            "sequence_lengths_p1": sequence_lengths + 1,
            "padding_mask": places > sequence_lengths[:, None],
            "padding_mask_p1": places > sequence_lengths[:, None] + 1,
            "masked_whiten": ppo_trainer.masked_whiten,
            "masked_mean": ppo_trainer.masked_mean,
            "micro_batch_inds": torch.arange(ROWS),
        }
        exec(lines("# 4. compute rewards", "empty_cache()"), space)  # noqa: S102 (code of the peer that is recorded)
        space["new_logprobs"].requires_grad_()
        space["vpred"].requires_grad_()
        space |= {"mb_values": space["values"], "mb_return": space["returns"]}
        space |= {"mb_advantage": space["advantages"], "mb_logprobs": space["logprobs"]}
        exec(lines("vpredclipped = torch.clamp(", "accelerator.backward(loss)"), space)  # noqa: S102 (code of the peer that is recorded)
        gradients = torch.autograd.grad(space["loss"], [space["new_logprobs"], space["vpred"]])
        recorded[name] = {
            "last": last,
            "advantages": space["advantages"].tolist(),
            "returns": space["returns"].tolist(),
            "policy_loss": space["pg_loss"].item(),
            "value_loss": space["vf_loss"].item(),
            "clip_fraction": ppo_trainer.masked_mean(
                (space["pg_losses2"] > space["pg_losses"]).float(), ~space["padding_mask"]
            ).item(),
            "log_probs_gradient": gradients[0].tolist(),
            "values_gradient": gradients[1].tolist(),
        }
    inputs_as_lists = {name: tensor.tolist() for name, tensor in inputs.items()}
    print(json.dumps({"args": vars(ARGS), "inputs": inputs_as_lists, **recorded}, indent=1))


if __name__ == "__main__":
    main()
