"""Pretraining: the loop, its schedule and optimizer, exact checkpoints, held-out evaluation."""

from xuebu.runtime import prepare_environment

prepare_environment()  # also where training is started from Python
