"""Pages that are made of what they describe: knobs, metrics, modules, the README's tables.

What stands around a list is written by hand and stays as it is.
"""
