"""Suites: named sets of runs, each described by one small TOML file, started and continued by one command.

The files beside this module are the suites that ship; a user's own is a path to a file of the same form.
"""
