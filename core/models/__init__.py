"""The architectures (torch) and the table of their names (no torch)."""
