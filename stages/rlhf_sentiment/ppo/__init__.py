"""Proximal policy optimisation.

loop       a run from its first step to its last
step       one step: collect, then learn
actors     the models, and the optimizer
equations  the equations, each with its paper
"""
