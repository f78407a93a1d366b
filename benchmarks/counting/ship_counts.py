"""Counts the catalogue's networks at the published sizes and writes what ships: edgeseg/assets/network_counts.json.

    python benchmarks/counting/ship_counts.py                    # the counts that are not there yet
    python benchmarks/counting/ship_counts.py pspnet- icnet      # those whose names begin so, again
    python benchmarks/counting/ship_counts.py --all              # every one again, after a change to the rewrites
    python benchmarks/counting/ship_counts.py --names            # only the names of their tensors: seconds

Run it after adding a row, and with ``--all`` after a change to edgeseg/rewrites. Parameters and published
multiply-accumulates come from the torch module, deployed ones from the ONNX graph that a build makes: exported at that
size and rewritten. Nothing is computed, so that the largest take a minute and a few GB.
"""

import sys
import time
from collections.abc import Iterable

import torch

from edgeseg.counting import macs_of_onnx
from edgeseg.errors import EdgesegError
from edgeseg.export import _export, _images_to_logits, _quiet
from edgeseg.models.catalog import CATALOG
from edgeseg.models.catalog_checkpoints import digest
from edgeseg.models.network_entry import NetworkEntry, counted
from edgeseg.models.shapes import expected_shapes
from edgeseg.models.shipped_counts import ShippedCounts, shipped_counts, write_counts
from edgeseg.rewrites import rewrite


def main(arguments: list[str]) -> None:
    shapes = {entry.name: expected_shapes(entry.name, 1) for entry in CATALOG}
    names = {name: (len(tensors), digest(tensors)) for name, tensors in shapes.items()}
    write_counts({}, names)
    if arguments == ["--names"]:
        return
    for entry in chosen(arguments):
        for size, classes in entry.counted_at:
            if not arguments and is_complete(entry, size, classes):
                continue
            begin = time.perf_counter()
            published = counted(entry, size, classes)
            deployed = deployed_macs(entry, size, classes)
            row = ShippedCounts(published.params, published.macs, deployed)
            write_counts({(entry.name, size, classes): row}, names)
            rewritten = f"{deployed / 1e9:.3f}" if deployed else "no"
            print(
                f"{entry.name} {size[0]}x{size[1]}, {classes} classes: {published.params / 1e6:.4f} M parameters, "
                f"{published.macs / 1e9:.3f} GMACs, {rewritten} deployed ({time.perf_counter() - begin:.0f} s)",
                flush=True,
            )


def chosen(arguments: list[str]) -> Iterable[NetworkEntry]:
    """The rows that the command line asks for; without arguments all of them, of which the complete are passed over."""
    if arguments in ([], ["--all"]):
        return CATALOG
    return [entry for entry in CATALOG if entry.name.startswith(tuple(arguments))]


def is_complete(entry: NetworkEntry, size: tuple[int, int], num_classes: int) -> bool:
    """Whether both counts are there."""
    row = shipped_counts().get((entry.name, size, num_classes))
    return row is not None and row.deployed_macs is not None


def deployed_macs(entry: NetworkEntry, size: tuple[int, int], num_classes: int) -> int | None:
    """Of the rewritten graph; None where the network does not export."""
    torch.manual_seed(0)
    wrapper = _images_to_logits(entry.build(num_classes)).eval()
    try:
        with _quiet(), torch.no_grad():
            exported = _export(wrapper, (1, 3, *size), (1, 1), 18)
        model, _ = rewrite(exported)
        return macs_of_onnx(model)
    except (EdgesegError, ValueError) as error:
        print(f"{entry.name}: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
