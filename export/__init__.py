"""From a checkpoint to a graph, and from a graph to an engine."""
