"""Language models: loading, tokens, and how this project calls them.

loading        load and save models and tokenizers
weights        the files of a model
compatibility  what a model must be able to do
tokens         text to token ids and back
forward        position ids, hidden states, logits, scores
value_head     the heads of the reward model and the critic
adapters       low-rank adapters, and one trunk for several models
devices        device, seeds, precision
recomputing    gradients with less memory
exchange       what several processes exchange: rows, results, decisions
fsdp           weights that several processes divide
kernels        matrix products with the same bytes on every processor
"""
