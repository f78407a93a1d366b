"""`edgeseg run`: images, folders, videos and cameras through a bundle; label maps and overlays out."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from edgeseg.errors import InputError
from edgeseg.files import make_folder
from edgeseg.images import find_images, load_image, save_image, save_labels
from edgeseg.inference_modes import InferenceMode
from edgeseg.overlay import class_shares, shares_of_counts
from edgeseg.overlay import overlay as draw_overlay
from edgeseg.pipeline import Segmenter
from edgeseg.progress import Progress
from edgeseg.video import VideoReader, is_video, write_video


def run(
    segmenter: Segmenter | InferenceMode,
    inputs: list[str],
    output: Path,
    *,
    overlay: bool = True,
    alpha: float = 0.5,
    max_frames: int | None = None,
    progress: Progress = Progress(),
) -> dict:
    """The JSON document of `edgeseg run`.

    Args:
        segmenter: a loaded bundle, or one that slides windows over its images.
        inputs: image files, folders of images, video files, `camera:0` or a stream's URL.
        output: folder for `<name>.png` (palette PNG, class ids as pixel values) and `<name>-overlay.jpg`; videos give
            `<name>-overlay.mp4`.
        overlay: draw the picture people look at; label maps of images are always written.
        alpha: opacity of the colours, 0..1.
        max_frames: stop a video or camera after so many frames.
    """
    images, videos = _sort_inputs(inputs)
    if images:
        segmenter(load_image(images[0]))  # the first pass of an engine is slow: it stays out of the times
    times: list[np.ndarray] = []
    outputs = []
    names = _unique_names(images)
    with progress.task("segment", len(images)) as advance:
        for path, name in zip(images, names, strict=True):
            image = load_image(path)
            labels = segmenter(image)
            times.append(_stage_times(segmenter))
            outputs.append(_save(segmenter, image, labels, path, output / name, overlay, alpha))
            advance(1)
    for source in videos:
        outputs.append(_run_video(segmenter, source, output, times, alpha, max_frames, progress))
    median = np.median(times, axis=0)
    return {
        "outputs": outputs,
        "latency_ms": dict(zip(("preprocess", "engine", "tail"), (round(float(t), 3) for t in median), strict=True)),
    }


def _sort_inputs(inputs: list[str]) -> tuple[list[Path], list[str]]:
    videos = [source for source in inputs if is_video(source)]
    files = [Path(source) for source in inputs if not is_video(source)]
    images = find_images(files) if files else []
    if not images and not videos:
        raise InputError("no input: pass images, folders, videos or camera:0")
    return images, videos


def _unique_names(paths: list[Path]) -> list[str]:
    """File names without their ending; where two are equal, a number follows."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path.stem] = seen.get(path.stem, 0) + 1
        names.append(path.stem if seen[path.stem] == 1 else f"{path.stem}-{seen[path.stem]}")
    return names


def _save(
    segmenter: Segmenter | InferenceMode, image, labels, source: Path, stem: Path, overlay: bool, alpha: float
) -> dict:
    make_folder(stem.parent)
    labels_path = stem.with_name(f"{stem.name}.png")
    if labels_path.resolve() == source.resolve():
        raise InputError(f"{source} would be overwritten by its own labels; choose another folder with -o")
    save_labels(labels_path, labels, segmenter.label_set)
    overlay_path = None
    if overlay:
        overlay_path = stem.with_name(f"{stem.name}-overlay.jpg")
        save_image(overlay_path, draw_overlay(image, labels, segmenter.label_set, alpha=alpha))
    return {
        "input": str(source),
        "labels": str(labels_path),
        "overlay": str(overlay_path) if overlay_path else None,
        "classes": class_shares(labels, segmenter.label_set),
    }


def _run_video(
    segmenter: Segmenter | InferenceMode,
    source: str,
    output: Path,
    times: list[np.ndarray],
    alpha: float,
    max_frames: int | None,
    progress: Progress,
) -> dict:
    make_folder(output)
    name = Path(source).stem if Path(source).suffix else source.replace(":", "-").replace("/", "-")
    path = output / f"{name}-overlay.mp4"
    counts = np.zeros(256, np.int64)
    with VideoReader(source) as reader:
        total = min(filter(None, (reader.frame_count, max_frames)), default=None)
        with write_video(path, reader.frame_rate) as writer, progress.task(f"segment {name}", total) as advance:
            for frame in _first(reader, max_frames):
                labels = segmenter(frame)
                times.append(_stage_times(segmenter))
                counts += np.bincount(labels.ravel(), minlength=256)
                writer.write(draw_overlay(frame, labels, segmenter.label_set, alpha=alpha))
                advance(1)
    shares = shares_of_counts(counts, segmenter.label_set)
    return {"input": source, "labels": None, "overlay": str(path), "classes": shares, "skipped": reader.skipped}


def _first(frames: Iterable[np.ndarray], count: int | None) -> Iterator[np.ndarray]:
    for index, frame in enumerate(frames):
        if index == count:
            return
        yield frame


def _stage_times(segmenter: Segmenter | InferenceMode) -> np.ndarray:
    assert segmenter.times
    return np.array([segmenter.times.preprocess, segmenter.times.engine, segmenter.times.tail])
