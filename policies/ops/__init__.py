"""Sequence operators of the cores, one package each: `naive` is the reference, faster versions beside it."""
