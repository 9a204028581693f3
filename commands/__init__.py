"""The commands, one module each: parse, build a config, call the rooms and compose them, print.

Rooms are imported inside the functions, so that help loads nothing heavy.
"""
