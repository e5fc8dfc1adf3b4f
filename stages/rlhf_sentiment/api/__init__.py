"""What is called from Python. It sits above all other rooms.

config       the settings as one object
pipeline     run the pipeline
comparison   the results side by side
preferences  preference pairs from your files
tuning       train a reward model and a policy
repository   what the current folder must be
"""
