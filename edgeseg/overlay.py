"""Labels shown over their picture: tinted classes, thin borders between them, and a legend."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgeseg.images import check_image, check_labels
from edgeseg.labels import VOID, LabelSet
from edgeseg.ops import blend_labels

_LEGEND_HEIGHT = 0.7  # the most of the picture's height that the legend may take
_SMALLEST_FONT = 10  # pixels; smaller is not readable
_PAPER = (18, 18, 18)
_INK = (245, 245, 245)
_PAPER_OPACITY = 0.72


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    label_set: LabelSet,
    alpha: float = 0.5,
    legend: bool = True,
    contours: bool = True,
) -> np.ndarray:
    """The picture, tinted by class. Void pixels (255) keep the picture's own colour.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, ids of the label set or 255.
        label_set: names and colours.
        alpha: share of the class colour, 0 (the picture) to 1 (the colours); `edgeseg.ops.blend_labels` says how it
            rounds.
        legend: list the classes that are there, by share; left out where the picture is too small to read it.
        contours: draw the borders between classes.

    Returns:
        (H, W, 3) uint8, a new array.
    """
    check_image(image)
    check_labels(labels, label_set)
    if labels.shape != image.shape[:2]:
        raise ValueError(f"labels and image must have one size, got {labels.shape} and {image.shape[:2]}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    blended = blend_labels(image, labels, np.array(label_set.palette, np.uint8), alpha)
    if contours and labels.size:
        _draw_contours(blended, labels, label_set)
    if legend:
        _draw_legend(blended, labels, label_set)
    return blended


def class_shares(labels: np.ndarray, label_set: LabelSet) -> dict[str, float]:
    """Share of all pixels of each class that is there, the largest first; void pixels count in the whole only."""
    return shares_of_counts(np.bincount(labels.ravel(), minlength=256), label_set)


def shares_of_counts(counts: np.ndarray, label_set: LabelSet) -> dict[str, float]:
    """The same from the number of pixels of each of the 256 ids."""
    present = [i for i in np.argsort(-counts, kind="stable") if counts[i] and i < label_set.num_classes]
    return {label_set.classes[i]: float(counts[i] / counts.sum()) for i in present}


def side_by_side(*images: np.ndarray, gap: int = 8) -> np.ndarray:
    """Pictures of one height in a row, `gap` white pixels between them."""
    if not images:
        raise ValueError("side_by_side needs at least one image")
    for image in images:
        check_image(image)
    heights = sorted({image.shape[0] for image in images})
    if len(heights) > 1:
        raise ValueError(f"images in a row must have one height, got {heights}; resize them first")
    white = np.full((heights[0], gap, 3), 255, np.uint8)
    return np.concatenate([part for image in images for part in (image, white)][:-1], axis=1)


def _draw_contours(picture: np.ndarray, labels: np.ndarray, label_set: LabelSet) -> None:
    """Pixels whose right or lower neighbour is of another class take a lighter tone of their own class."""
    thickness = max(1, round(min(labels.shape) / 500))
    border = np.zeros(labels.shape, bool)
    border[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    border[:-1] |= labels[1:] != labels[:-1]
    for _ in range(thickness - 1):
        border[:, 1:] |= border[:, :-1].copy()
        border[1:] |= border[:-1].copy()
    border &= labels != VOID
    table = label_set.colour_table().astype(np.uint16)
    light = ((table + 255) // 2).astype(np.uint8)
    picture[border] = light[labels[border]]


def _draw_legend(picture: np.ndarray, labels: np.ndarray, label_set: LabelSet) -> None:
    """A dark panel in the upper left corner: swatch, name, percent; what does not fit is counted in a last line."""
    height, width = labels.shape
    size = max(_SMALLEST_FONT, round(min(height, width) / 36))
    line, pad = round(size * 1.45), round(size * 0.6)
    rows = min(int((height * _LEGEND_HEIGHT - 2 * pad) // line), label_set.num_classes)
    shares = class_shares(labels, label_set) if labels.size else {}
    if rows < 1 or not shares:
        return
    font = ImageFont.load_default(size)
    entries = [(name, _percent(share)) for name, share in shares.items()]
    shown = entries if len(entries) <= rows else entries[: max(rows - 1, 1)]
    rest = f"+ {len(entries) - len(shown)} more" if len(entries) > len(shown) and rows > 1 else ""

    texts = [*(name for name, _ in shown), rest]
    percent_width = max(font.getlength(percent) for _, percent in shown)
    panel_width = round(4 * pad + size + max(map(font.getlength, texts)) + percent_width)
    panel_height = 2 * pad + line * (len(shown) + bool(rest))
    if panel_width > width - 2 * pad:
        return
    under = picture[pad : pad + panel_height, pad : pad + panel_width]
    paper = under * (1 - _PAPER_OPACITY) + np.array(_PAPER) * _PAPER_OPACITY
    panel = Image.fromarray(np.rint(paper).astype(np.uint8))
    draw = ImageDraw.Draw(panel)
    colours = dict(zip(label_set.classes, label_set.palette, strict=True))
    for row, (name, percent) in enumerate(shown):
        top = pad + row * line + (line - size) // 2
        draw.rectangle((pad, top, pad + size - 1, top + size - 1), fill=colours[name], outline=_INK)
        draw.text((2 * pad + size, top + size / 2), name, fill=_INK, font=font, anchor="lm")
        draw.text((panel_width - pad, top + size / 2), percent, fill=_INK, font=font, anchor="rm")
    if rest:
        draw.text((2 * pad + size, pad + (len(shown) + 0.5) * line), rest, fill=_INK, font=font, anchor="lm")
    under[:] = np.asarray(panel)


def _percent(share: float) -> str:
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
