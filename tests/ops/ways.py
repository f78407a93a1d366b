"""The ways to compute an op that several tests try: what this machine and this build have."""

import pytest

from edgeseg import kernels

EMULATION = kernels.library_path("edgeseg_emulated") is not None
needs_emulation = pytest.mark.skipif(not EMULATION, reason="built without EDGESEG_EMULATION")
