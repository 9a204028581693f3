"""Data sets, image files and downloads.

The names of the data sets are here because `--help` needs them without NumPy.
"""

DATASETS = ("cifar10", "fashion-mnist", "shapes")
"""Data sets with a name; a folder of class folders is a data set too."""
