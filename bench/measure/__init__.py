"""Timing: cells, contenders, runners, the self-check, intervals and the environment."""
