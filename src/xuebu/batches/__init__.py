"""Batches as facts: sampling, pairs, masking, packing, and the counting baselines that models are held against."""
