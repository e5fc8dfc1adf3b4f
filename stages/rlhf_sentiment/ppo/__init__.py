"""Proximal policy optimisation.

loop       a run from its first step to its last
step       one step: collect, then learn
actors     the models, and the optimizer
forecast   the memory and the time of a run, before its work
plan       the memory of a run, from shapes
passes     the memory of one pass of the models
timing     the time of a step
equations  the equations, each with its paper
"""
