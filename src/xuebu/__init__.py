"""xuebu 学步: raw text to a pretrained, evaluated encoder, and an honest account of what the training did."""

__version__ = "0.1.0"
