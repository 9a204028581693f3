"""The Python API: what the commands do, as functions. docs/python.md shows all of it.

>>> import numpy as np
>>> import rtk
>>> model = rtk.load("resnet20v1-cifar10")

One call classifies any number of images. An image that cannot be read has an error and no predictions:

>>> image_HWC = np.zeros((32, 32, 3), np.uint8)
>>> black, missing = model.classify([image_HWC, "missing.png"], top_k=2)
>>> black.label in model.card.classes, len(black.predictions), black.error
(True, 2, '')
>>> missing.file, missing.error, missing.predictions
('missing.png', 'no such file', ())

A single image needs no list:

>>> model(image_HWC).label == black.label
True

`logits` returns the raw output of the model, N x K for N images and K classes:

>>> model.logits(np.zeros((5, 32, 32, 3), np.uint8)).shape
(5, 10)
>>> model.close()
"""

from ..infer.classify import Answer, Prediction
from .images import Image, Layout
from .model import Model, load

__all__ = ["Answer", "Image", "Layout", "Model", "Prediction", "load"]
