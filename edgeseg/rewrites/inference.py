"""What only training needs: Identity, Dropout that is switched off, and nodes that no output depends on.

Each is the identity at inference, or has no effect at all, and it hides the layers around it from the other rules.
"""

from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeseg.onnx_checks import is_idle_dropout
from edgeseg.rewrites.graph import Graph


def remove_training_parts(graph: Graph) -> int:
    """Removes them; returns how many nodes."""
    removed = 0
    for node in graph.nodes("Identity", "Dropout"):
        source, output = node.inputs[0], node.outputs[0]
        if source is None or output.is_graph_output() or (node.op_type == "Dropout" and not is_idle_dropout(node)):
            continue
        graph.bypass(output, source)
        removed += 1
    before = len(graph.graph)
    RemoveUnusedNodesPass()(graph.model)
    return removed + before - len(graph.graph)
