"""The pages that are lists: every knob from its field, every metric from its definition.

What stands around a list is written by hand and stays as it is.
"""
