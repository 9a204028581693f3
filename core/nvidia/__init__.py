"""NVIDIA's driver, the two TensorRTs, and the types of an engine's layers."""
