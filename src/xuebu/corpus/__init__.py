"""Documents in, a clean corpus with a card out."""
