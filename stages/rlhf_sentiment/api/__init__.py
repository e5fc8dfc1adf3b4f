"""The Python interface. No other subpackage imports it.

config       the settings as one object
pipeline     run the pipeline
comparison   the results side by side
preferences  preference pairs from your files
tuning       train a reward model and a policy
repository   checks of the current folder, and of its last run
"""
