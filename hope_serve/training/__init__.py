"""Meta-training of checkpoints, their data and their evaluation."""
