"""The range of every activation on the calibration images, by several methods, from one histogram per activation."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from ...core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..config import Method

PERCENTILE = "percentile-"
"""What the names of the methods begin with that cut off values. The number after it is the percentage of the values
that the range keeps. Half of the others are cut off at each end; none at an end that is 0."""
BINS = 2_048
BATCH = 100
CLIPS = [float(share) for share in np.linspace(0.3, 1.0, 71)]
"""mse: the candidates for the ends of a range, as shares of the smallest and the largest value."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Histogram:
    """Counts of the values of one activation."""

    counts: NDArray[np.int64]
    low: float
    high: float

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        return (edges[1:] + edges[:-1]) / 2


def session_as_written(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a quantised graph in ONNX Runtime on the CPU as it is written: dequantise, compute in fp32, quantise.

    ONNX Runtime's integer kernels are switched off: on processors without VNNI they saturate at 16 bits, so their
    logits would not be those of the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def logits_as_written(graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of the graph, computed by `session_as_written`."""
    session = session_as_written(graph)
    starts = range(0, len(images_NHWC), BATCH)
    return np.concatenate([session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC[i : i + BATCH]})[0] for i in starts])


def with_outputs(graph: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return a copy of the graph that has these tensors as outputs too."""
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    known = {value.name for value in copied.graph.output}
    copied.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known
    )
    return copied


def histograms(graph: onnx.ModelProto, names: list[str], images_NHWC: NDArray[np.uint8]) -> dict[str, Histogram]:
    """Return a histogram of each activation over all images. The first pass finds the ends, the second one counts."""
    wide = with_outputs(graph, names)
    session = session_as_written(wide)
    ends = dict.fromkeys(names, (np.inf, -np.inf))
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    batches = [images_NHWC[start : start + BATCH] for start in range(0, len(images_NHWC), BATCH)]
    for images_BHWC in batches:
        for name, values in zip(names, session.run(names, {INPUT_NAME: images_BHWC}), strict=True):
            low, high = ends[name]
            ends[name] = min(low, float(values.min())), max(high, float(values.max()))
    for images_BHWC in batches:
        for name, values in zip(names, session.run(names, {INPUT_NAME: images_BHWC}), strict=True):
            low, high = ends[name]
            scale = BINS / max(high - low, 1e-30)
            bins = np.minimum(((values.ravel() - low) * scale).astype(np.int64), BINS - 1)
            counts[name] += np.bincount(bins, minlength=BINS)
    return {name: Histogram(counts[name], *ends[name]) for name in names}


def range_of(histogram: Histogram, method: Method, *, symmetric: bool) -> Range:
    """Return the range to quantise; it contains zero."""
    low, high = min(0.0, histogram.low), max(0.0, histogram.high)
    if method == "minmax":
        return low, high
    if method in ("mse", "mse-each-end"):
        each_end = method == "mse-each-end" and low < 0 < high and not symmetric
        return _range_of_least_error(histogram, (low, high), symmetric=symmetric, each_end=each_end)
    cut = 1 - float(method.removeprefix(PERCENTILE)) / 100
    above = cut / (2 if low < 0 < high else 1)
    cumulated = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(histogram.low, histogram.high, BINS + 1)
    first = int(np.searchsorted(cumulated, above))
    last = min(int(np.searchsorted(cumulated, 1 - above)), BINS - 1)
    return (min(0.0, float(edges[first])) if low < 0 else 0.0), max(0.0, float(edges[last + 1]))


def _range_of_least_error(histogram: Histogram, limits: Range, *, symmetric: bool, each_end: bool) -> Range:
    """Return the range with the least squared error when both ends move together; `each_end`: then each one alone."""
    low, high = limits

    def best(candidates: list[Range]) -> Range:
        return min(candidates, key=lambda one: _squared_error(histogram, *one, symmetric=symmetric))

    found = best([(clip * low, clip * high) for clip in CLIPS])
    if each_end:
        for _ in range(2):
            found = best([found, *((clip * low, found[1]) for clip in CLIPS)])
            found = best([found, *((found[0], clip * high) for clip in CLIPS)])
    return found


def _squared_error(histogram: Histogram, low: float, high: float, *, symmetric: bool) -> float:
    """Return the squared error of quantisation to eight bits between `low` and `high`, summed over all values."""
    if symmetric:
        limit = max(-low, high)
        low, high, steps = -limit, limit, 254
    else:
        steps = 255
    step = max(high - low, 1e-30) / steps
    centres = histogram.centres
    quantised = np.round(np.clip(centres, low, high) / step) * step
    return float((histogram.counts * (centres - quantised) ** 2).sum())
