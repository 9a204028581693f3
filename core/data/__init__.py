"""Data sets, image files and downloads."""
