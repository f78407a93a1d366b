"""Images used twice: ranges fitted to the images that later say how good they are."""

from collections.abc import Collection, Iterable
from pathlib import Path

from edgeseg.bundle import sha256_of_file
from edgeseg.failures import Finding

DIGITS = 16  # hexadecimal: 64 bits tell any number of pictures apart


def fingerprint(path: Path) -> str:
    """What an image file is recognised by, wherever it lies and whatever it is called: SHA-256 of its bytes."""
    return sha256_of_file(path)[:DIGITS]


def calibrated_on_evaluation(evaluated: Iterable[Path], calibrated: Collection[str]) -> list[Finding]:
    """`edgeseg eval`: image files, and the fingerprints that the bundle's scales file holds."""
    if not calibrated:
        return []
    paths = list(evaluated)
    known = set(calibrated)
    both = [path.name for path in paths if fingerprint(path) in known]
    if not both:
        return []
    message = (
        f"{len(both)} of the {len(paths)} evaluated images are among the {len(known)} that the INT8 ranges were fitted "
        f"to ({', '.join(both[:3])}{', …' if len(both) > 3 else ''}): the mIoU flatters this build; calibrate on "
        "training images and evaluate on others"
    )
    return [Finding("calibrated-on-evaluation", "warning", message, {"images": both})]


def verified_on_calibration(verified: Collection[str], calibrated: Collection[str]) -> list[Finding]:
    """Builds: fingerprints of the images that the gate sees, and of those that the ranges were fitted to."""
    both = set(verified) & set(calibrated)
    if not both:
        return []
    message = (
        f"{len(both)} of the gate's {len(set(verified))} images were calibrated on as well, too few to "
        "hold some back; put more images into --calibration-data for a gate on images that the ranges have not seen"
    )
    return [Finding("verified-on-calibration", "note", message, {"images": len(both)})]
