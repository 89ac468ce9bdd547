"""What pictures of records have in common."""

from __future__ import annotations

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222222")
DOTS_PER_INCH = 130
