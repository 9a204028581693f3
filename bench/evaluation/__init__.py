"""What a model is worth on labelled images: accuracy, figures of each class, calibration; and two models compared."""
