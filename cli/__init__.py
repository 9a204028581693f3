"""The command line: a module for each command, each of which parses, calls the workflow and prints.

The other rooms are imported inside the functions, except configs, which are light; so help loads nothing heavy.
"""
