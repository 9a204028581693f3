"""Export: a graph from a checkpoint, and an engine from a graph."""
