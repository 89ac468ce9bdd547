"""Measurements, side by side in one run: routers, one Mixture-of-Experts layer, a live server.

Every benchmark makes a record (a dictionary that JSON can hold); Markdown and picture are made from
the record and from nothing else."""
