"""The parts of stage 3: roles, experience, updates, rewards, tripwires and the control group.

May import: train.run, evaluate, and the layers below.
"""
