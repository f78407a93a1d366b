"""Frames from video files, cameras and streams, and overlay videos out. Needs PyAV: pip install 'edgeseg[video]'."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.errors import EdgesegError, InputError
from edgeseg.files import replacing, write_error
from edgeseg.images import check_image

VIDEO_EXTENSIONS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
CAMERA = "camera:"  # camera:0 is the first one
_STREAMS = ("rtsp://", "rtsps://", "http://", "https://", "udp://", "rtmp://")
_STREAM_TIMEOUT_S = 10.0
_DEFAULT_RATE = Fraction(25)  # of sources that do not know their own
# The first that this build of FFmpeg has; both write what players and browsers show.
_ENCODERS: dict[str, dict[str, str]] = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "4"}}


def is_video(source: str | Path) -> bool:
    """Is this a video file by its suffix, a camera ("camera:0") or a stream ("rtsp://...")?"""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_EXTENSIONS


def is_live(source: str | Path) -> bool:
    """A camera or stream: it has no end, and frames can be lost on the way."""
    return str(source).startswith((CAMERA, *_STREAMS))


class VideoReader:
    """Frames of a video, camera or stream, in order, each (H, W, 3) uint8 RGB, turned as the file says.

    >>> with VideoReader("drive.mp4") as video:
    ...     for frame in video: ...

    Args:
        source: a file, "camera:N" (Linux: /dev/videoN) or a URL.

    Attributes:
        frame_rate: frames a second, as the source says; 25 where it does not.
        frame_count: how many there will be, or None where that is not known.

    Raises:
        InputError: no such source, no video in it, or, while reading, damaged data in a file. Damaged packets of a live
            stream are skipped and counted in `skipped`.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = source
        self.skipped = 0
        self._live = is_live(source)
        self._av = _pyav()
        self._container: Any = _opened(self._av, source)
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{source} holds no video; give a video file")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.frame_rate: Fraction = Fraction(rate) if rate else _DEFAULT_RATE
        self.frame_count: int | None = None if self._live else _frame_count(self._av, self._container, self.frame_rate)

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = 0
        packets = iter(self._container.demux(self._stream))
        while True:
            try:
                packet = next(packets)
                decoded = packet.decode()
            except StopIteration:
                break
            except self._av.error.FFmpegError as error:
                if self._live and isinstance(error, self._av.error.InvalidDataError):
                    self.skipped += 1
                    continue
                where = f"after frame {frames}" if frames else "at its start"
                raise InputError(
                    f"{self.source} cannot be decoded {where} ({error.strerror}); "
                    "re-encode it, for example with ffmpeg -i in.mp4 out.mp4"
                ) from error
            for frame in decoded:
                frames += 1
                turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise, like numpy's
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
        if not frames:
            raise InputError(f"{self.source} holds no frame that can be decoded; record or export it again")

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def write_video(path: Path, frame_rate: Fraction | int) -> Iterator["VideoWriter"]:
    """A video file to write frames to, which appears under its name once it is complete.

    >>> with write_video(Path("out.mp4"), video.frame_rate) as writer:
    ...     writer.write(frame)

    H.264 (MPEG-4 where FFmpeg lacks it) in 4:2:0, which needs even sizes: an odd height or width grows by one pixel
    that repeats the border. Nothing is left behind when the block ends with an error, or without any frame.

    Args:
        path: ends in one of `VIDEO_EXTENSIONS`; replaced if it exists.
        frame_rate: frames a second.

    Raises:
        ValueError: another suffix. InputError, EdgesegError: the file cannot be written, or no frame was.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        raise ValueError(f"a video ends in one of {', '.join(sorted(VIDEO_EXTENSIONS))}, got {path.name}")
    av = _pyav()
    with replacing(path) as temporary:
        writer = None
        try:
            writer = VideoWriter(av.open(str(temporary), "w"), Fraction(frame_rate).limit_denominator(65535))
            yield writer
            writer.finish()
        except av.error.FFmpegError as error:
            raise write_error(path, OSError(error.errno, error.strerror)) from error
        finally:
            if writer is not None:
                writer.close()
        if not writer.frames:
            raise EdgesegError(f"{path} was not written: there was no frame to put into it")


class VideoWriter:
    """What `write_video` gives: takes the frames."""

    def __init__(self, container: Any, frame_rate: Fraction) -> None:
        self.frames = 0
        self._av = _pyav()
        self._container = container
        self._frame_rate = frame_rate
        self._stream: Any = None
        self._size = (0, 0)

    def write(self, frame: np.ndarray) -> None:
        """Append one (H, W, 3) uint8 RGB frame. Raises ValueError if it is not of the first one's size."""
        check_image(frame)
        height, width = frame.shape[:2]
        if self._stream is None:
            self._size = (height, width)
            self._stream = self._new_stream(height + height % 2, width + width % 2)
        if (height, width) != self._size:
            raise ValueError(f"all frames of a video have one size; the first was {self._size}, got {(height, width)}")
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(even, format="rgb24")))
        self.frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds, and the file's index."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def close(self) -> None:
        """Let go of the file; after an error what closing says comes second to it."""
        with suppress(self._av.error.FFmpegError):
            self._container.close()

    def _new_stream(self, height: int, width: int) -> Any:
        for name, options in _ENCODERS.items():
            if name in self._av.codecs_available:
                stream = self._container.add_stream(name, rate=self._frame_rate, options=options)
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                return stream
        raise EdgesegError(f"this FFmpeg has none of the encoders {', '.join(_ENCODERS)}; reinstall av from PyPI")


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise EdgesegError("reading and writing video needs PyAV: pip install 'edgeseg[video]'") from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines on stderr; what matters arrives as an exception
    return av


def _opened(av: Any, source: str | Path) -> Any:
    text = str(source)
    try:
        if text.startswith(CAMERA):
            return av.open(_camera_device(text), format="v4l2")
        if is_live(text):
            options = {"rtsp_transport": "tcp"} if text.startswith("rtsp") else {}
            return av.open(text, options=options, timeout=_STREAM_TIMEOUT_S)
        return av.open(text)
    except av.error.FileNotFoundError as error:
        raise InputError(f"{text} does not exist; give a video file, camera:N or a stream's URL") from error
    except (av.error.FFmpegError, OSError) as error:
        what = "cannot be reached" if is_live(text) else "is not a video that can be read"
        raise InputError(f"{text} {what} ({error.strerror}); check it with a player first") from error


def _camera_device(text: str) -> str:
    number = text.removeprefix(CAMERA)
    if not number.isdecimal():
        raise InputError(f"{text} is no camera; give camera:0 for the first one")
    if not sys.platform.startswith("linux"):
        raise InputError(
            f"{text}: cameras are read through Video4Linux, which {sys.platform} lacks; give a file or a URL"
        )
    device = f"/dev/video{number}"
    if not Path(device).exists():
        there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "no camera"
        raise InputError(f"{text}: there is no {device} (found: {there}); connect the camera or give another number")
    return device


def _frame_count(av: Any, container: Any, rate: Fraction) -> int | None:
    stream = container.streams.video[0]
    if stream.frames:
        return int(stream.frames)
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * rate)
    return round(Fraction(container.duration, av.time_base) * rate) if container.duration else None
