"""TensorRT engines from graphs."""
