"""What stages leave behind and read: run folders, manifests, checkpoints, exported models."""
