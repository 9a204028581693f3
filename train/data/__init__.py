"""Data of a training: splits, the order of images, preprocessing and its statistics."""
