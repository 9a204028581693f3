"""The classes of CIFAR-10 and Fashion-MNIST, and the size of a row in CIFAR-10's files."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_ROW_BYTES = 1 + 3 * 32 * 32
"""One label, then the red, green and blue planes."""
