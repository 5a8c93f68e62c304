"""What stage 3 is made of: roles, experience, updates, rewards and tripwires.

May import: train.run, evaluate, and the layers below.
"""
