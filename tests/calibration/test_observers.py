import numpy as np
import pytest

from edgeseg.calibration.observers import BINS, EntropyObserver, HistogramObserver, make_observer


def observed(method, parts, percentile=99.99):
    observer = make_observer(method, percentile)
    for part in parts:
        observer.observe(part)
    return observer


def heavy_tailed(count=200_000, seed=0):
    """Mostly small, a few values ten times larger: where the methods differ."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=count)
    values[:20] *= 10
    return values.astype(np.float32)


def test_max_is_the_largest_magnitude_over_all_parts():
    assert observed("max", [np.float32([1, -3]), np.float32([[2]])]).amax() == 3
    assert observed("max", [np.float32([[-7, 2]])[:, ::-1]]).amax() == 7


@pytest.mark.parametrize("method", ["max", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("part", [np.zeros((0, 3), np.float32), np.zeros(5, np.float32)])
def test_nothing_and_zeros_have_no_range(method, part):
    assert observed(method, [part, part]).amax() == 0


@pytest.mark.parametrize("method", ["max", "percentile", "entropy", "mse"])
def test_one_value_is_its_own_range(method):
    assert observed(method, [np.float32([0, 0]), np.float32([-4])], 100).amax() == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(FloatingPointError):
        observed("percentile", [np.float32([1, bad])])


def test_a_histogram_that_grew_equals_one_that_knew_the_range():
    parts = [np.float32([0, 0, 0]), 0.01 * heavy_tailed(1000, 1), heavy_tailed(1000, 2), 33 * heavy_tailed(1000, 3)]
    grown = HistogramObserver()
    for part in parts:
        grown.observe(part)
    values = np.abs(np.concatenate(parts).astype(np.float64))
    expected, _ = np.histogram(values, BINS, (0, grown.width * BINS))
    # A value on an edge may fall to either side in float32.
    assert np.abs(np.cumsum(grown.counts) - np.cumsum(expected)).max() <= 1
    assert grown.counts.sum() == len(values)
    assert grown.width * BINS / 2 <= values.max() < grown.width * BINS


@pytest.mark.parametrize("percentile", [50, 99, 99.9, 99.99, 100])
def test_percentile_equals_sorting(percentile):
    values = heavy_tailed()
    observer = observed("percentile", np.split(values, 8), percentile)
    magnitudes = np.sort(np.abs(values))
    exact = magnitudes[int(np.ceil(percentile / 100 * len(values))) - 1]
    assert exact <= observer.amax() * (1 + 1e-6)
    assert observer.amax() <= exact + observer.width * (1 + 1e-6)


def test_mse_is_near_the_best_of_all_ranges():
    values = heavy_tailed().astype(np.float64)

    def error(amax):
        step = amax / 127
        return np.mean((values - step * np.clip(np.rint(values / step), -127, 127)) ** 2)

    found = observed("mse", [values.astype(np.float32)]).amax()
    best = min(error(amax) for amax in np.linspace(0.02, 1, 200) * np.abs(values).max())
    assert error(found) <= 1.02 * best
    assert error(found) < 0.5 * error(np.abs(values).max())


def test_entropy_equals_the_textbook_search():
    """Every cut of the observer's own bins, written as loops over bins and levels."""
    observer = observed("entropy", [np.abs(heavy_tailed(20_000))])
    assert isinstance(observer, EntropyObserver)
    counts = observer.used().astype(float)
    counts[0] = counts[1]
    best = (np.inf, 0)
    for cut in [*range(128, len(counts), 8), len(counts)][::16]:
        p = counts[:cut].copy()
        p[-1] += counts[cut:].sum()
        q = np.zeros(cut)
        for level in range(128):
            bins = [i for i in range(cut) if i * 128 // cut == level and counts[i] > 0]
            for i in bins:
                q[i] = sum(counts[j] for j in bins) / len(bins)
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0)
        best = min(best, (divergence, cut))
    own = observer._divergence(counts, round(observer.amax() / observer.width))
    assert own <= best[0] + 1e-9


def test_clipping_methods_ignore_one_outlier():
    values = heavy_tailed()
    values[0] = 60
    assert observed("max", [values]).amax() == 60
    for method in ("percentile", "mse", "entropy"):
        assert observed(method, [values]).amax() < 45


def test_unknown_method_and_percentile_name_the_choices():
    with pytest.raises(ValueError, match="max, percentile, entropy, mse"):
        make_observer("minmax", 99.9)
    with pytest.raises(ValueError, match=r"50 \.\. 100, got 0\.9999"):
        make_observer("percentile", 0.9999)
