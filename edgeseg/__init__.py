"""edgeseg: semantic-segmentation networks, fast, small and provably right on the device they ship on.

>>> bundle = edgeseg.build(model="segformer-b0", precision="int8")
>>> with edgeseg.load(bundle.path) as segmenter:
...     labels = segmenter(image)  # (H, W, 3) uint8 RGB -> (H, W) uint8
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.errors import EdgesegError
    from edgeseg.pipeline import Segmenter, load

__all__ = ["Bundle", "EdgesegError", "Segmenter", "build", "load"]

_HOMES = {"Bundle": "bundle", "EdgesegError": "errors", "Segmenter": "pipeline", "load": "pipeline"}


def build(**options) -> "Bundle":
    """Make a bundle; the keyword arguments are the fields of `edgeseg.builder.BuildOptions`."""
    from edgeseg.builder import BuildOptions
    from edgeseg.builder import build as build_bundle

    return build_bundle(BuildOptions(**options))


def __getattr__(name: str):
    """The public names, imported at their first use: `import edgeseg` costs nothing."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    return getattr(import_module(f"edgeseg.{_HOMES[name]}"), name)
