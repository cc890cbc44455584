"""The history of a run: written line by line, read whole, from our trainer or from another's."""
