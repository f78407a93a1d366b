"""Shared fixtures: small real things, made once."""

import os

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs one worker a core


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
