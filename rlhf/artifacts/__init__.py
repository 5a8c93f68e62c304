"""What stages leave behind and read: run folders, manifests, checkpoints, exported models.

May import: engine, and the layers below.
"""
