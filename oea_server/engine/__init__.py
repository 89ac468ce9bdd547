"""Everything that knows SGLang: the plug-in's seams, a file for each, and what the seams share."""
