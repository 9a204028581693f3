"""What a training reads: splits, the order of images, preprocessing and its statistics."""
