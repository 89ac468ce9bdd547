"""`oea-server calibrate`: the rules that read least for what they cost, found without measuring all
of them in full."""
