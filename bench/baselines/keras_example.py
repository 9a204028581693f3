"""The training of the Keras CIFAR-10 ResNet example, in Keras 3 on its torch backend, as a baseline.

A new implementation of the example as it is described: its networks, Adam, batches of 32, shifts and mirrored images
from Keras' own generator. The network outputs logits and the loss takes logits, where the example has a softmax: the
arithmetic is the same.
"""

import importlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BackendError, UsageError
from ...core.models.names import Architecture
from ...core.text import one_line
from .training_loops import Steps

BATCH = 32
FAMILIES = ("v1", "v2")
"""The ResNet versions of the example."""


def import_keras(device: str) -> Any:
    """Load Keras on its torch backend and this device, for the whole process. Raises BackendError if it is missing."""
    os.environ |= {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": device}  # Keras reads them when it is imported
    try:
        importlib.import_module("scipy.ndimage")  # the generator needs it, but fails only in its first batch
        return importlib.import_module("keras")
    except ImportError as error:
        raise BackendError(f"Keras cannot be loaded ({one_line(error)}); pip install keras scipy") from error


def keras_loop(keras: Any, arch: Architecture, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> Steps:
    """Train without end. Raises UsageError for a network that is not of FAMILIES."""
    if arch.family.name not in FAMILIES:
        raise UsageError(f"the Keras example has no {arch.name}; expected a resnet of {' or '.join(FAMILIES)}")
    scaled_NHWC = images_NHWC.astype(np.float32) / 255
    scaled_NHWC -= scaled_NHWC.mean(0)
    classes = int(labels_N.max()) + 1
    network, _ = keras_network(keras, arch, scaled_NHWC.shape[1:], classes)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.Adam(learning_rate=1e-3), loss=loss, metrics=["accuracy"])
    generator = importlib.import_module("keras.src.legacy.preprocessing.image").ImageDataGenerator(
        width_shift_range=0.1, height_shift_range=0.1, fill_mode="nearest", horizontal_flip=True
    )
    return _steps(network, generator.flow(scaled_NHWC, np.eye(classes, dtype=np.float32)[labels_N], batch_size=BATCH))


def _steps(network: Any, batches: Any) -> Steps:
    for images_BHWC, targets_BK in batches:
        if len(images_BHWC) == BATCH:  # the last batch of an epoch may be smaller
            network.train_on_batch(images_BHWC, targets_BK)
            yield BATCH


def keras_network(
    keras: Any, arch: Architecture, shape: tuple[int, ...] = (32, 32, 3), classes: int = 10
) -> tuple[Any, list[Any]]:
    """The example's network without its softmax, and its layers with weights in the order of their creation.

    Keras' own list of layers has another order.
    """
    layers = keras.layers
    created: list[Any] = []

    def with_weights(layer: Any) -> Any:
        created.append(layer)
        return layer

    def conv(x: Any, filters: int, kernel: int = 3, strides: int = 1) -> Any:
        initial = {"kernel_initializer": "he_normal", "kernel_regularizer": keras.regularizers.L2(1e-4)}
        return with_weights(layers.Conv2D(filters, kernel, strides=strides, padding="same", **initial))(x)

    def norm(x: Any) -> Any:
        return with_weights(layers.BatchNormalization())(x)

    def norm_relu(x: Any) -> Any:
        return layers.Activation("relu")(norm(x))

    def block_v1(x: Any, filters: int, strides: int, project: bool) -> Any:
        y = norm_relu(conv(x, filters, strides=strides))
        y = norm(conv(y, filters))
        shortcut = conv(x, filters, 1, strides) if project else x
        return layers.Activation("relu")(layers.add([shortcut, y]))

    def block_v2(x: Any, width: int, filters: int, strides: int, project: bool, activate: bool) -> Any:
        y = conv(norm_relu(x) if activate else x, width, 1, strides)
        y = conv(norm_relu(y), width)
        y = conv(norm_relu(y), filters, 1)
        shortcut = conv(x, filters, 1, strides) if project else x
        return layers.add([shortcut, y])

    images = layers.Input(shape)
    x = norm_relu(conv(images, 16))
    blocks = (arch.depth - 2) // arch.family.layers_per_n
    if arch.family.name == "v1":
        for stage, filters in enumerate((16, 32, 64)):
            for block in range(blocks):
                starts = stage > 0 and block == 0
                x = block_v1(x, filters, 2 if starts else 1, starts)
    else:
        for stage, (width, filters) in enumerate(((16, 64), (64, 128), (128, 256))):
            for block in range(blocks):
                first = block == 0
                strides = 2 if stage > 0 and first else 1
                x = block_v2(x, width, filters, strides, project=first, activate=stage > 0 or not first)
        x = norm_relu(x)
    pooled = layers.Flatten()(layers.AveragePooling2D(-(-shape[0] // 4))(x))
    return keras.Model(images, with_weights(layers.Dense(classes, kernel_initializer="he_normal"))(pooled)), created
