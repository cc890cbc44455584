"""Charts: `figures` computes values and labels, `draw` makes pictures of them."""
