"""Faults, one function each, and what came of them."""
