"""int8 graphs: calibration images, activation ranges, quantisation, and the cost of each layer."""
