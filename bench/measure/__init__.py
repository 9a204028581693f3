"""Timing: cells, contenders, the self-check, intervals and the environment."""
