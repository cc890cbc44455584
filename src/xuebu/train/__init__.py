"""Pretraining: the loop, its schedule and optimizer, exact checkpoints, held-out evaluation."""
