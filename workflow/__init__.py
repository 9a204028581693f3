"""Workflows: what combines several rooms, such as exporting a model and judging it."""
