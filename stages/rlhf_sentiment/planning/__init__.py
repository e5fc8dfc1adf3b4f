"""What a run of PPO needs, before its work: `python stages/ppo.py --plan`.

forecast  the plan that is printed, and what a run is refused for
memory    the memory of a run, from shapes
passes    the memory of one pass of the models
timing    the time of a step
"""
