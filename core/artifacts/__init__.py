"""The files that rtk writes and reads: checkpoints, graphs, engines, and their caches."""
