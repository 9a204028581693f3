"""The opset and the IR version of the graphs that rtk writes. Needs neither onnx nor torch.

A runtime refuses a file whose IR version it does not know, whatever is in it. Each graph has the IR version of the ONNX
release in which its opset appeared, and never more than 10. ONNX Runtime 1.17, of January 2024, loads opset 20 in IR 9,
and refuses IR 10; 1.20, of October 2024, knows opsets to 21 and IR 10. rtk's graphs use nothing that IR 11 to 14 added.
"""

from ..core.errors import UsageError

OPSET = 20
"""The default."""
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 10}
"""By opset; the table is in the onnx package, onnx/helper.py, VERSION_TABLE. Opset 23 came with IR 11.

PyTorch's exporter writes opset 18 and above. It converts to lower ones where it can, and otherwise leaves the graph as
it is. Above 23 it depends on the version of the exporter."""
FIRST = {"bf16": 22}
"""The first opset with a convolution of that type; other precisions have no such limit."""


def opset_of(precision: str, requested: int | None = None) -> int:
    """Return the opset of a graph in that precision: the one that the user named, or the default.

    Raises UsageError for an opset that rtk does not write, or that has no convolutions in the precision.
    """
    first = FIRST.get(precision, min(IR_VERSIONS))
    if requested is None:
        return max(OPSET, first)
    known = f"{min(IR_VERSIONS)} to {max(IR_VERSIONS)}"
    if requested not in IR_VERSIONS:
        raise UsageError(f"--opset {requested!r}: expected {known}, or no --opset for {OPSET}")
    if requested < first:
        raise UsageError(
            f"--opset {requested}: convolutions in {precision} begin in opset {first}; expected {first} to "
            f"{max(IR_VERSIONS)}, or another --precision"
        )
    return requested
