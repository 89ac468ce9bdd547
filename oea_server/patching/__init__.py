"""The command `oea-server patch`: the routing seams written into the installed SGLang, in place of
hooks."""
