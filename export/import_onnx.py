"""Put rtk's preprocessing in front of an ONNX classifier of another program, and check that its answers stay the same.

The result is a graph like those that rtk exports: uint8 `images` N x H x W x C in, float32 `logits` N x K out. It is
compared with the original, image by image, in batches of several sizes.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.card import Input, Preprocessing
from ..core.errors import ArtifactError, UsageError
from ..core.library_errors import reason_of
from ..core.models.model import MIN_PROBABILITY
from ..core.probe import probe_images
from .any_batch import BATCH, with_any_batch
from .foreign_graph import Foreign
from .onnx_preprocessing import LOWEST_OPSET, preprocessing_nodes
from .opset import IR_VERSIONS, OPSET

PREFIX = "net."
"""In front of the names of the original graph, so that they are no names of rtk's."""
BATCHES = (1, 2, 5)
SIZE = sum(BATCHES)
CONVERTED_BELOW = min(IR_VERSIONS)
"""Graphs with a lower opset are converted to rtk's own, if that works."""
THROUGH = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that leave the values as they are."""
CLOSE = {"fp32": 1e-4, "fp16": 0.02}
"""The largest difference from the original's logits, in their standard deviations, by the precision of the original."""
SUM_IS_ONE = 1e-3
SMALLEST = float(np.log(1e-20))
"""Logarithms of smaller probabilities are not compared: float32 has too few digits for them."""

LOGITS, LOG_PROBABILITIES, PROBABILITIES, SIGMOID = "logits", "log-probabilities", "probabilities", "sigmoid"


@dataclass(frozen=True)
class ImportedGraph:
    """A graph of rtk's without a card, and what was found out about the original."""

    graph: onnx.ModelProto
    output: str
    """The name of the original's output."""
    kind: str
    """What that gives: logits, log-probabilities, probabilities or sigmoid."""
    opset: int
    largest_difference: float
    """Of its logits from the original's, over the probe images."""


def imported_graph(
    foreign: Foreign,
    path: Path,
    *,
    classes: int,
    preprocessing: Preprocessing,
    size: Input,
    output: str | None = None,
) -> ImportedGraph:
    """Return the graph with preprocessing in front of it. `path`: for messages; `output`: the name of the logits.

    Raises UsageError if sizes, channels or classes do not fit the graph; ArtifactError if ONNX Runtime cannot run it,
    or if it cannot be made to take any batch.
    """
    _check_size(foreign, path, preprocessing, size)
    images_NHWC = probe_images(SIZE, size)
    pixels = _pixels(foreign, images_NHWC, preprocessing, size)
    name, values_NK = _output_of(foreign, path, pixels, classes, output)
    kind, expected_NK = _kind_of(foreign.model.graph, name, values_NK)
    problems: list[str] = []
    for converted in _opsets(foreign.model):
        opset = converted.opset_import[0].version
        if opset < LOWEST_OPSET:
            continue
        for candidate in with_any_batch(converted, foreign.input, foreign.batch):
            graph = _assembled(candidate, foreign, name, kind, classes, preprocessing, size)
            try:
                onnx.checker.check_model(graph, full_check=True)
                logits_NK = _in_batches(graph, images_NHWC)
            except Exception as error:  # onnx and ONNX Runtime have errors of many kinds; the next way may work
                problems.append(reason_of(error))
                continue
            if kind in (PROBABILITIES, SIGMOID):
                logits_NK, expected_NK = np.maximum(logits_NK, SMALLEST), np.maximum(expected_NK, SMALLEST)
            off = float(np.abs(logits_NK - expected_NK).max()) if logits_NK.shape == expected_NK.shape else np.inf
            if off <= max(CLOSE[foreign.precision] * float(expected_NK.std()), 1e-6 * float(np.abs(expected_NK).max())):
                return ImportedGraph(graph, name, kind, opset, off)
            problems.append(f"its logits in batches of {', '.join(map(str, BATCHES))} differ by up to {off:.2g}")
    if not problems:
        raise ArtifactError(
            f"{path}: opset {foreign.opset}, which cannot be converted; expected {LOWEST_OPSET} or above"
        )
    what = "takes any batch" if foreign.batch is None else f"is made for batches of {foreign.batch}"
    raise ArtifactError(
        f"{path}: {what}, and with preprocessing in front it does not give the original's answers in other batches "
        f"({problems[-1]}); export it again with a dynamic batch"
    )


def class_count(foreign: Foreign, path: Path, size: Input) -> int:
    """Return the number of classes of a graph whose outputs are not known: of the first output that is N x K.

    Raises ArtifactError if there is none, or ONNX Runtime cannot run the graph.
    """
    shape = size.shape if foreign.is_nhwc else (size.channels, size.height, size.width)
    batch = foreign.batch or 1
    pixels = np.zeros((batch, *shape), np.float16 if foreign.precision == "fp16" else np.float32)
    try:
        outputs = _session(foreign.original).run(None, {foreign.input: pixels})
    except Exception as error:  # ONNX Runtime has errors of many kinds
        raise ArtifactError(f"{path}: ONNX Runtime cannot run it: {reason_of(error)}") from error
    shapes = [np.shape(one) for one in outputs]
    found = [one[1] for one in shapes if one[:1] == (batch,) and len(one) > 1 and set(one[2:]) <= {1}]
    if not found:
        listed = ", ".join(" x ".join(map(str, one)) for one in shapes)
        raise ArtifactError(f"{path}: its outputs are {listed}, expected N x K: it is no image classifier")
    return int(found[0])


def _check_size(foreign: Foreign, path: Path, preprocessing: Preprocessing, size: Input) -> None:
    height, width = preprocessing.resize or size.shape[:2]
    given = (height, width, preprocessing.channels)
    for found, asked in zip(foreign.image_shape, given, strict=True):
        if found is not None and found != asked:
            text = " x ".join("any" if one is None else str(one) for one in foreign.image_shape)
            raise UsageError(
                f"{path}: it takes images of {text} (height, width, channels), and the preprocessing gives "
                f"{' x '.join(map(str, given))}"
            )


def _pixels(
    foreign: Foreign, images_NHWC: NDArray[np.uint8], preprocessing: Preprocessing, size: Input
) -> NDArray[np.float32]:
    """What the original takes for these images, computed by rtk's preprocessing."""
    import torch

    from ..core.models.normalise import build_normalise

    with torch.inference_mode():
        pixels_NCHW = build_normalise(preprocessing, size)(torch.from_numpy(images_NHWC)).numpy()
    return np.ascontiguousarray(pixels_NCHW.transpose(0, 2, 3, 1) if foreign.is_nhwc else pixels_NCHW)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _output_of(
    foreign: Foreign, path: Path, pixels: NDArray[np.float32], classes: int, wanted: str | None
) -> tuple[str, NDArray[np.float64]]:
    """The name of the output with one number for each class, and its values for the pixels, from the original graph.

    Raises UsageError if it is none or several, ArtifactError if ONNX Runtime cannot run the graph.
    """
    names = [value.name for value in foreign.original.graph.output]
    if wanted is not None and wanted not in names:
        raise UsageError(f"{path}: has no output {wanted!r}; expected one of: {', '.join(names)}")
    batch = foreign.batch or SIZE
    starts = range(0, len(pixels), batch)
    padded = np.concatenate([pixels, np.repeat(pixels[-1:], len(starts) * batch - len(pixels), axis=0)])
    if foreign.precision == "fp16":
        padded = padded.astype(np.float16)
    try:
        session = _session(foreign.original)
        parts = [session.run(names, {foreign.input: padded[start : start + batch]}) for start in starts]
    except Exception as error:  # ONNX Runtime has errors of many kinds
        raise ArtifactError(f"{path}: ONNX Runtime cannot run it: {reason_of(error)}") from error
    found: dict[str, NDArray[np.float64]] = {}
    shapes: dict[str, str] = {}
    for index, name in enumerate(names):
        values = [np.asarray(part[index]) for part in parts]
        shapes[name] = " x ".join(["N", *map(str, values[0].shape[1:])])
        if values[0].dtype.kind == "f" and values[0].shape[:1] == (batch,) and values[0].size == batch * classes:
            found[name] = np.concatenate(values).reshape(-1, classes)[: len(pixels)].astype(np.float64)
    fitting = [wanted] if wanted in found else [] if wanted else [*found]
    if len(fitting) != 1:
        listed = ", ".join(f"{name} ({shape})" for name, shape in shapes.items())
        advice = "name one of them" if len(fitting) > 1 else f"expected N x {classes} floats, one for each class"
        raise UsageError(f"{path}: {len(fitting)} of its outputs have a number for each class: {listed}; {advice}")
    return fitting[0], found[fitting[0]]


def _kind_of(graph: onnx.GraphProto, name: str, values_NK: NDArray[np.float64]) -> tuple[str, NDArray[np.float64]]:
    """What an output gives, and the logits that the imported graph must give for the same images."""
    last = _maker(graph, name)
    if last is not None and last.op_type == "Sigmoid":
        return SIGMOID, np.log(np.maximum(values_NK, MIN_PROBABILITY))
    if last is not None and last.op_type == "LogSoftmax":
        return LOG_PROBABILITIES, values_NK
    sums_N = values_NK.sum(axis=1)
    if values_NK.min() >= 0 and np.abs(sums_N - 1).max() <= SUM_IS_ONE and values_NK.shape[1] > 1:
        return PROBABILITIES, np.log(np.maximum(values_NK, MIN_PROBABILITY))
    return LOGITS, values_NK


def _maker(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The node that computes a tensor, or the one before it where a node leaves the values as they are."""
    makers = {output: node for node in graph.node for output in node.output}
    node = makers.get(name)
    while node is not None and node.op_type in THROUGH and node.input[0] in makers:
        node = makers[node.input[0]]
    return node


def _opsets(model: onnx.ModelProto) -> list[onnx.ModelProto]:
    """The graph in rtk's opset, if its own is lower than any that rtk writes and it can be converted; then as it is."""
    if model.opset_import[0].version >= CONVERTED_BELOW:
        return [model]
    try:
        given = onnx.ModelProto()
        given.CopyFrom(model)
        given.ir_version = max(given.ir_version, 4)  # initialisers that are no inputs
        return [onnx.version_converter.convert_version(given, OPSET), model]
    except Exception:  # the converter fails in many ways, also on graphs of PyTorch's exporter
        return [model]


def _assembled(
    model: onnx.ModelProto,
    foreign: Foreign,
    output: str,
    kind: str,
    classes: int,
    preprocessing: Preprocessing,
    size: Input,
) -> onnx.ModelProto:
    """Return preprocessing, the network, and what turns its output into logits N x K, as one graph."""
    opset = model.opset_import[0].version
    prefixed = onnx.compose.add_prefix(model, PREFIX)
    nodes, constants, last = preprocessing_nodes(preprocessing, size, opset=opset, nhwc=foreign.is_nhwc)
    result, end = f"{PREFIX}{output}", "rtk.answers"
    after = [
        helper.make_node("Reshape", [result, "rtk.answers.shape"], [end], name="rtk.answers"),
    ]
    constants.append(numpy_helper.from_array(np.array([-1, classes], np.int64), "rtk.answers.shape"))
    network = [onnx.NodeProto.FromString(node.SerializeToString()) for node in prefixed.graph.node]
    if kind in (PROBABILITIES, SIGMOID) and not _takes_logarithm(network, _maker(prefixed.graph, result)):
        constants.append(numpy_helper.from_array(np.array(MIN_PROBABILITY, np.float32), "rtk.smallest"))
        after += [
            helper.make_node("Max", [end, "rtk.smallest"], ["rtk.positive"], name="rtk.positive"),
            helper.make_node("Log", ["rtk.positive"], ["rtk.log"], name="rtk.log"),
        ]
        end = "rtk.log"
    after[-1].output[0] = OUTPUT_NAME
    for node in network:
        node.input[:] = [last if name == f"{PREFIX}{foreign.input}" else name for name in node.input]
    graph = helper.make_graph(
        [*nodes, *network, *after],
        "rtk",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [BATCH, *size.shape])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [BATCH, classes])],
        [*constants, *prefixed.graph.initializer],
    )
    made = helper.make_model(
        graph,
        producer_name="rtk",
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSIONS.get(opset, min(IR_VERSIONS.values()) if opset < CONVERTED_BELOW else 10),
    )
    return _without_unused(made)


def _takes_logarithm(nodes: list[onnx.NodeProto], last: onnx.NodeProto | None) -> bool:
    """Let the last node give the logarithm of its result, in place, if it is a softmax or a sigmoid; return whether.

    The logarithm of a result would lose all probabilities that are too small for fp16.
    """
    at = next((k for k, node in enumerate(nodes) if last is not None and node.name == last.name), -1)
    if at < 0:
        return False
    node = nodes[at]
    if node.op_type == "Softmax":
        node.op_type = "LogSoftmax"
        return True
    if node.op_type != "Sigmoid":
        return False
    result, names = node.output[0], [f"rtk.sigmoid.{k}" for k in range(2)]
    nodes[at : at + 1] = [  # log(1 / (1 + exp(-x))) is -softplus(-x)
        helper.make_node("Neg", [node.input[0]], names[:1], name=names[0]),
        helper.make_node("Softplus", names[:1], names[1:], name=names[1]),
        helper.make_node("Neg", names[1:], [result], name="rtk.sigmoid"),
    ]
    return True


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove nodes and constants that the logits do not need, such as those of another output."""
    needed, kept = {OUTPUT_NAME}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            needed |= _reads(node)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    return model


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names of the tensors that a node reads, also from inside of its graphs."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for one in inner.node:
                names |= _reads(one)
            names |= {value.name for value in inner.output}
    return names


def _in_batches(graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits of the images in batches of BATCHES."""
    session, parts, start = _session(graph), [], 0
    for count in BATCHES:
        parts.append(session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC[start : start + count]})[0])
        start += count
    return np.concatenate(parts)
