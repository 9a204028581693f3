"""int8 graphs: calibration images, ranges, quantisation, and which layers suffer from it."""
