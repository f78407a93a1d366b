"""INT8 calibration: activation ranges from real images, kept in a file that explains itself.

`calibrate(model, batches)` -> `Scales`, and `edgeseg.precision.int8.quantize(model, scales)` writes them into the ONNX.
"""

from edgeseg.calibration.collect import calibrate
from edgeseg.calibration.scales import Scales

__all__ = ["Scales", "calibrate"]
