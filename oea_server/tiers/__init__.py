"""Tiers: names for what requests are promised, and who may ask for which. Knows no SGLang."""
