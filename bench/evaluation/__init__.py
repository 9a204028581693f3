"""What a model is worth on labelled images: accuracy, figures of each class, calibration; and two models compared."""

BATCH = 256
"""Images in a batch; smaller where the backend takes fewer."""
