"""What the training stages share.

checkpoints  save and resume a run, to the byte
trainer      what the stages on transformers' Trainer share
"""
