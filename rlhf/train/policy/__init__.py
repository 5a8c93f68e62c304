"""What stage 3 is made of: roles, experience, updates, rewards and tripwires.

May import: train.run, rollout, engine, and the layers below.
"""
