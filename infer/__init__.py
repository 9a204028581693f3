"""Inference: sources of images, backends with one contract, classification, and outputs for answers."""
