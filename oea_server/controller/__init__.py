"""A target for the time per token: which settings serve next, under a quality floor that no target
moves."""
