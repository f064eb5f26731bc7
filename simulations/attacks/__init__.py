"""Attacks as measurements: how well does a released answer tell who is in it, and what their genomes are?

Each attack is a function of the released answer, the targets' own data and a public reference, and gives one score a
target. `success.py` turns the scores of people who took part and of people who did not into figures. An attack knows
nothing of defences beyond what an answer states.
"""
