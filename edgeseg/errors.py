"""What can go wrong in the world. Wrong arguments are ValueError; the rest is one of these, with a message in three
parts: what came, what was wanted, what to do. The command line prints the message alone and exits with 1."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.verify import Verification


class EdgesegError(Exception):
    """Base of all of them."""


class InputError(EdgesegError):
    """A file or folder that the user gave cannot be used: a corrupt image, an unreadable data set, a wrong path."""


class CheckpointError(EdgesegError):
    """Weights that do not fit the network, or that cannot be read safely."""


class ExportError(EdgesegError):
    """A network that does not become the ONNX that was asked for."""


class CalibrationError(EdgesegError):
    """Scales that are missing, stale or made from the wrong data."""


class BackendError(EdgesegError):
    """A backend that is not installed, or cannot build or run here."""


class EngineBuildError(BackendError):
    """The backend's builder refused the network."""


class BundleError(EdgesegError):
    """A bundle that was altered, is incomplete, or was made for another backend, version or GPU."""


class VerificationError(EdgesegError):
    """The build does not reproduce the FP32 reference closely enough; `verification` holds what the gate saw, and
    `fallback` the search for what to keep out of INT8, as in verification.json, where there was one."""

    def __init__(self, message: str, verification: "Verification", fallback: dict | None = None):
        super().__init__(message)
        self.verification = verification
        self.fallback = fallback
