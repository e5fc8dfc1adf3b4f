"""Code that the training stages share.

checkpoints  save and resume a run, with the same bytes
trainer      the code around transformers' Trainer
shares       the Trainer in several processes
dtype        the type of matrix products
"""
