"""What a device could do at most, and the work that a graph asks for."""
