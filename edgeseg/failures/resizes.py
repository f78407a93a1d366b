"""Resizes inside a network computed with another convention than the file says: a fault of exporters and runtimes.

Such a fault does not move the mask as a whole, since maps of several strides meet in it. So the reference is run with
its own resizes changed, and if the build labels as that one does, the convention is the cause.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeseg.backends.base import Session
from edgeseg.backends.onnxruntime import session_from_model

if TYPE_CHECKING:
    import onnx

ATTRIBUTE = "coordinate_transformation_mode"
CONVENTIONS = ("half_pixel", "align_corners", "asymmetric")


def with_other_resizes(model: "onnx.ModelProto") -> Iterator[tuple[str, Session]]:
    """The network with all its Resize nodes in each convention that they do not have, opened in ONNX Runtime."""
    import onnx

    present = {_convention(node) for node in _resizes(model)}
    for convention in CONVENTIONS if present else ():
        if present == {convention}:
            continue
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for node in _resizes(changed):
            kept = [item for item in node.attribute if item.name != ATTRIBUTE]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(ATTRIBUTE, convention)])
        with session_from_model(changed) as session:
            yield convention, session


def _resizes(model: "onnx.ModelProto") -> list["onnx.NodeProto"]:
    return [node for node in model.graph.node if node.op_type == "Resize"]


def _convention(node: "onnx.NodeProto") -> str:
    stated = next((item.s.decode() for item in node.attribute if item.name == ATTRIBUTE), "half_pixel")
    return "half_pixel" if stated == "pytorch_half_pixel" else stated  # they differ for outputs of one pixel alone
