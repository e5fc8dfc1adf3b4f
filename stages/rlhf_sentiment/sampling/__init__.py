"""Text from a model.

rollout  sample responses, and score their tokens
answers  the responses to prompts, as `sample` and `compare` need them
"""
