"""A BERT encoder with its pretraining heads: settings, presets and costs without torch, the modules with it."""
