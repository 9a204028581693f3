"""What belongs to the optimiser: learning rate schedules, averaged weights, the guard against NaN and infinity."""
