"""Export a model of the zoo: export_graphs.py MODEL PRECISION,... (into RTK_CACHE_DIR/payload, for smoke.py).

Runs where the payloads are built: int8 calibration needs training images, which reach the GPU machine later. The files
have plain names: a graph in rtk's own cache is not found by another processor or another version of PyTorch.
"""

import logging
import sys

from rtk.core.data.open_dataset import open_dataset
from rtk.core.files import write_whole
from rtk.core.paths import cache_path
from rtk.core.zoo import zoo_file
from rtk.workflow.artifacts import cached_graph

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, precisions = sys.argv[1], sys.argv[2].split(",")
    for precision in precisions:
        # on a GPU rtk bench uses the int8 graph for TensorRT, also in ONNX Runtime
        cached = cached_graph(
            zoo_file(model, ".pt"), precision=precision, int8_flavor="tensorrt", dataset=open_dataset("cifar10")
        )
        graph = cache_path("payload", f"{model}.{precision}.onnx")
        write_whole(graph, cached.read_bytes())
        print(graph)
