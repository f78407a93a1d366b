"""Finding the GPU and reaching it. Without one: that each way there ends in a clear reason."""

import os
import shutil
import subprocess
import sys

import pytest

from edgeseg.backends.cuda_driver import CudaPythonDriver, driver_package, open_driver
from edgeseg.backends.gpu import find_gpu
from edgeseg.errors import BackendError

no_gpu = pytest.mark.skipif(find_gpu()[0] is not None, reason="this machine has an NVIDIA GPU")

# The few functions of NVIDIA's driver that are asked; STATUS is what cuInit says.
DRIVER = r"""
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Test GPU", length); return device != 7; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 6ull << 30; return device != 7; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : 6; return device != 7; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
"""


@no_gpu
def test_no_gpu():
    gpu, reason = find_gpu()
    assert gpu is None and "driver" in reason
    with pytest.raises(BackendError, match="no NVIDIA GPU to run on: "):
        open_driver()


@no_gpu
def test_cuda_python_without_a_gpu():
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    assert driver_package() == "cuda-python"
    with pytest.raises(BackendError, match=r"CUDA failed in cudaSetDevice: \w+"):
        CudaPythonDriver()


@pytest.mark.skipif(not shutil.which("cc") or sys.platform != "linux", reason="needs a C compiler on Linux")
@pytest.mark.parametrize(
    "status, count, wanted",
    [
        (0, 2, "Gpu(name='Test GPU', compute_capability='8.6', memory_bytes=6442450944, driver='12.6')"),
        (0, 0, "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)"),
        (100, 0, "the NVIDIA driver does not work: cuInit says no GPU"),
        (35, 0, "the NVIDIA driver does not work: cuInit says error 35"),
    ],
)
def test_what_the_driver_says(status, count, wanted, tmp_path):
    source = tmp_path / "driver.c"
    source.write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    defines = [f"-DSTATUS={status}", f"-DCOUNT={count}"]
    subprocess.run(["cc", "-shared", "-fPIC", *defines, "-o", library, source], check=True)
    code = "from edgeseg.backends.gpu import find_gpu; gpu, reason = find_gpu(); print(gpu or reason)"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == wanted
