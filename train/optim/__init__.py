"""What surrounds the optimiser: learning rates, averaged weights, the guard against steps that are not finite."""
