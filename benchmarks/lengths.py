"""Give a GPT-2 with random weights an EOS, so that the lengths of its responses are geometric. ppo.py and trl_ppo.py use it."""

import math

import torch
from transformers import GPT2LMHeadModel

_COMMON = 30.0  # length of the part that all last hidden states have in common


@torch.no_grad()
def let_end(model: GPT2LMHeadModel, eos: int, rate: float) -> None:
    """Change a model so that each token is EOS with a probability of about `rate`.

    All last hidden states get one direction in common, and the embedding of EOS gets a part in this direction.

    Args:
        model: a GPT-2 with random weights.
        eos: token id.
        rate: mean probability of EOS at each token, above 0 and below 1.
    """
    size = model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(model.config.n_embd, generator=generator), dim=0)
    model.transformer.ln_f.bias.copy_(_COMMON * direction)
    ids = torch.randint(0, size - 2, (32, 16), generator=generator)
    wanted = math.log(rate / (1 - rate))
    for _ in range(5):
        found = model(ids).logits[:, -1].float().softmax(dim=-1)[:, eos].mean()
        model.transformer.wte.weight[eos] += (wanted - float(found.logit())) / _COMMON * direction
