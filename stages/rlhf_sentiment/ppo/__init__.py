"""Proximal policy optimisation.

loop       a run from its first step to its last
step       one step: collect, then learn
equations  the equations, each with its paper
"""
