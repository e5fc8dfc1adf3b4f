"""The Python interface. No other subpackage imports it.

config       the settings as one object
pipeline     run the pipeline
comparison   the results side by side
preferences  preference pairs from your files
scoring      train a reward model, and score texts
tuning       train a policy with PPO on any reward
repository   checks of the current folder, of its last run, and of folders to save to
"""
