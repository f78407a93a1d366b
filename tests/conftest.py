"""Shared fixtures: small real things, made once."""

import os
import signal
import tempfile

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs one worker a core
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="edgeseg-tests-")  # no scales from earlier runs


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` are skipped where torch finds no GPU."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no GPU"))


def pytest_configure(config: pytest.Config) -> None:
    """A shell's background job is deaf to Ctrl-C, and so would be the programs that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
