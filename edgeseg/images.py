"""Pictures and label images, in and out."""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from edgeseg.errors import InputError
from edgeseg.files import write_atomically
from edgeseg.labels import VOID, LabelSet

IMAGE_EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
BACKGROUND = (255, 255, 255)  # what shows through transparent pixels: white, as in a viewer or on paper

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SAVE_OPTIONS: dict[str, dict] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 92},
}


def load_image(path: Path) -> np.ndarray:
    """The picture as the photographer saw it.

    EXIF orientation is applied; grey, palette, CMYK and 1-bit images become RGB; transparent pixels show white;
    16-bit grey is scaled by 255 / 65535 (its full range, not its contents); of an animation the first frame counts.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        InputError: there is no readable image at `path`; the message says why.
    """
    path = Path(path)
    return np.array(_rgb(_decoded(path, upright=True), path))


def load_labels(path: Path) -> np.ndarray:
    """The ids of a label image: grey or palette, one class id a pixel. EXIF orientation is not looked at.

    Returns:
        (H, W) uint8.

    Raises:
        InputError: not an image, or one of colours rather than ids, or ids above 255.
    """
    path = Path(path)
    image = _decoded(path, upright=False)
    if image.mode in ("L", "P", "1"):
        return np.array(image, dtype=np.uint8)
    if image.mode == "I" or image.mode.startswith("I;16"):
        ids = np.asarray(image)
        if ids.size and (ids.max() > 255 or ids.min() < 0):
            raise InputError(
                f"{path} is a label image with ids up to {ids.max()}; one byte a pixel is wanted (0 to 255)"
            )
        return ids.astype(np.uint8)
    raise InputError(
        f"{path} is a label image in colours ({image.mode}); class ids are wanted, one byte a pixel "
        "(grey or palette PNG): convert the colours to ids first"
    )


def find_images(paths: Iterable[Path], *, recursive: bool = False) -> list[Path]:
    """Image files, in order: each file that was given, and each folder's images in natural order (2 before 10).

    Args:
        paths: files (taken whatever their suffix) and folders (searched for `IMAGE_EXTENSIONS`; hidden files skipped).
        recursive: look into the folders' own folders as well.

    Raises:
        InputError: a path that does not exist, or a folder without an image.
    """
    found: dict[Path, None] = {}  # a dict for its order; each file once
    for path in map(Path, paths):
        if path.is_dir():
            found.update(dict.fromkeys(_images_in(path, recursive)))
        elif path.exists():
            found[path] = None
        else:
            raise InputError(f"{path} does not exist; give an image or a folder of images")
    return list(found)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which frame_2 comes before frame_10."""
    pieces = re.split(r"(\d+)", path.as_posix().casefold())
    key = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]
    return [*key, (1, 0, str(path))]  # the path itself decides between frame_1 and frame_01


def save_labels(path: Path, labels: np.ndarray, label_set: LabelSet) -> None:
    """Write a palette PNG: the pixel values are the class ids, the palette shows them in the label set's colours.

    Args:
        path: ends in .png; replaced in one step if it exists.
        labels: (H, W) uint8; ids of the label set or 255 (void).

    Raises:
        ValueError: labels that are none of this label set. InputError, EdgesegError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"label images are PNG files (their pixel values must survive), got {path.name}")
    check_labels(labels, label_set)
    image = Image.fromarray(np.ascontiguousarray(labels))
    # All 256 entries: a shorter palette is stored with fewer bits a pixel, which some readers do not take for ids.
    image.putpalette(label_set.colour_table().tobytes())
    write_atomically(path, _encoded(image, format="PNG"))


def save_image(path: Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB picture as PNG, JPEG or WebP, by the path's suffix; replaced in one step.

    Raises:
        ValueError: another suffix or another kind of array. InputError, EdgesegError: the file cannot be written.
    """
    path = Path(path)
    check_image(image)
    options = _SAVE_OPTIONS.get(path.suffix.lower())
    if options is None:
        raise ValueError(f"cannot save {path.name}: the name must end in one of {', '.join(_SAVE_OPTIONS)}")
    write_atomically(path, _encoded(Image.fromarray(np.ascontiguousarray(image)), **options))


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless this is an (H, W, 3) uint8 array."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")


def check_labels(labels: np.ndarray, label_set: LabelSet) -> None:
    """Raise ValueError unless this is an (H, W) uint8 array of the label set's ids and 255."""
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"labels are (H, W) uint8, got {labels.shape} {labels.dtype}")
    if labels.size == 0 or labels.max() < label_set.num_classes:  # the common case, without counting
        return
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    strange = present[(present >= label_set.num_classes) & (present != VOID)]
    if strange.size:
        raise ValueError(
            f"labels hold the ids {', '.join(map(str, strange))}, but the label set {label_set.name} "
            f"has {label_set.num_classes} classes (0 to {label_set.num_classes - 1}, and 255 for void)"
        )


def _decoded(path: Path, *, upright: bool) -> Image.Image:
    """The file's first frame, decoded in whole. Every way in which that can fail is an InputError."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give the path of an image")
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of an image")
    try:
        with Image.open(path) as image:
            image.load()
            turn = _UPRIGHT.get(_orientation(image)) if upright else None
            return image.transpose(turn) if turn is not None else image.copy()
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to be a real image ({error}); scale it down first") from error
    except UnidentifiedImageError as error:
        empty = "is empty" if path.stat().st_size == 0 else "is not an image that can be read"
        raise InputError(f"{path} {empty}; give a PNG, JPEG, WebP, TIFF or BMP file") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; check its permissions") from error
    except Exception as error:  # a decoder fed with a damaged file raises nearly anything, SyntaxError included
        raise InputError(f"{path} is damaged ({error or type(error).__name__}); copy or export it again") from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data in a sound picture: shown as stored, as viewers do
        return 1


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image, path)
    elif image.mode == "F":
        raise InputError(
            f"{path} holds floating-point numbers, whose range is anyone's guess; save it with 8 or 16 bits"
        )
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        picture = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        picture.alpha_composite(image.convert("RGBA"))
        image = picture
    return image.convert("RGB")


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """16-bit grey to 8 bits by its full range, to nearest."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path} holds 32-bit integers ({values.min()} to {values.max()}); save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _images_in(folder: Path, recursive: bool) -> list[Path]:
    def images(pattern: str) -> list[Path]:
        return [
            path
            for path in folder.glob(pattern)
            if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".") and path.is_file()
        ]

    found = images("**/*" if recursive else "*")
    if not found:
        deeper = 0 if recursive else len(images("**/*"))
        advice = f"{deeper} lie in folders below it: give those" if deeper else "give a folder that holds some"
        raise InputError(f"the folder {folder} holds no image ({', '.join(sorted(IMAGE_EXTENSIONS))}); {advice}")
    return sorted(found, key=natural_key)
