"""rtk: a residual network from PyTorch training to a deployed TensorRT engine, with proof that nothing was lost."""

__version__ = "0.1.0"
