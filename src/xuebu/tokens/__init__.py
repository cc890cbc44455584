"""Characters to ids, words found once, and the memory-mapped store that batches are read from."""
