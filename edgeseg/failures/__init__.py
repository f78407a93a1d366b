"""Silent failures by name: engines and data that give a mask, no error, and a wrong result.

| name | what is wrong | found in |
|---|---|---|
| `nan` | logits that are NaN or infinite | builds, `eval` |
| `one-class-collapse` | one class covers the whole mask | builds, `eval` |
| `fp16-range` | how near float16's end the activations come, layer by layer | FP16 builds |
| `logit-saturation` | logits pile up at one largest value | builds, `eval` |
| `shifted-masks`, `stretched-masks` | a resize with another convention | builds, `eval` |
| `resize-convention` | resizes inside the network computed otherwise than the file says | builds |
| `swapped-channels`, `wrong-normalisation` | BGR for RGB, another mean and std | builds, `eval` |
| `class-order` | class ids in another order, or another palette | builds, `eval` |
| `calibrated-on-evaluation`, `verified-on-calibration` | images used twice | `eval`, builds |

Images that are no pictures are refused before any range is measured (`calibration.collect.PictureGuard`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing, and what to do about it."""

    name: str  # a name of the table above
    severity: Severity  # an error fails a build; a warning is printed; a note is written down
    message: str  # what was seen, and what to do
    details: Mapping[str, object] = field(default_factory=dict)  # JSON
