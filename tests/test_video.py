"""Videos made, damaged and read back, for real."""

import socket
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import EdgesegError, InputError
from edgeseg.video import VideoReader, is_live, is_video, write_video

av = pytest.importorskip("av")


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A smooth picture (4:2:0 and the encoder blur detail) with a bar that grows by a step a frame."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([80 + x, 60 + y, np.full_like(x, 120)], 2).astype(np.uint8)
    made = []
    for index in range(count):
        frame = base.copy()
        frame[: height // 4, : (index + 1) * width // count] = 230
        made.append(frame)
    return made


def written(path: Path, pictures: list[np.ndarray], rate: Fraction | int = 25) -> Path:
    with write_video(path, rate) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.MOV"])
def test_round_trip(tmp_path, name):
    pictures = frames(12)
    path = written(tmp_path / name, pictures, Fraction(30000, 1001))
    assert list(tmp_path.iterdir()) == [path]
    with VideoReader(path) as video:
        assert float(video.frame_rate) == pytest.approx(29.97, abs=0.01) and video.frame_count == 12
        read = list(video)
    assert len(read) == 12
    for picture, frame in zip(pictures, read, strict=True):
        assert frame.dtype == np.uint8 and frame.flags.c_contiguous
        assert np.abs(frame.astype(int) - picture).mean() < 6  # the next frame's bar alone would add more


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63)])
def test_odd_sizes_grow_by_a_repeated_border(tmp_path, height, width):
    pictures = frames(3, height, width)
    with VideoReader(written(tmp_path / "a.mp4", pictures)) as video:
        frame = next(iter(video))
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(frame[:height, :width].astype(int) - pictures[0]).mean() < 6
    assert np.abs(frame[-1].astype(int) - frame[-2]).mean() < 10


def test_rotation_of_a_phone_video(tmp_path):
    """A display matrix of 90 degrees clockwise, put into the file by hand: what was left is shown on top."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = 220
    path = written(tmp_path / "a.mp4", [picture] * 3)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of other fields
    one = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30)
    path.write_bytes(content)
    with VideoReader(path) as video:
        frame = next(iter(video))
    assert frame.shape == (64, 48, 3) and frame[:28].min() > 180 and frame[36:].max() < 60


class TestUnreadable:
    def error(self, path: Path | str) -> str:
        with pytest.raises(InputError) as caught, VideoReader(path) as video:
            for _ in video:
                pass
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    def test_no_video(self, tmp_path):
        (tmp_path / "text.mp4").write_text("no video at all")
        (tmp_path / "empty.mp4").touch()
        for path in (tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path):
            assert "is not a video that can be read" in self.error(path)
        assert "does not exist" in self.error(tmp_path / "none.mp4")

    def test_truncated(self, tmp_path):
        path = written(tmp_path / "a.mp4", frames(12))
        path.write_bytes(path.read_bytes()[:-400])  # the index of an mp4 is at its end
        assert "is not a video" in self.error(path)

    def test_damaged_data(self, tmp_path):
        noise = list(np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8))
        path = written(tmp_path / "a.mp4", noise)
        content = bytearray(path.read_bytes())
        start, length = content.index(b"mdat") + 4, 20000
        content[start : start + length] = bytes(length)
        path.write_bytes(content)
        assert "cannot be decoded" in self.error(path)

    def test_sound_only(self, tmp_path):
        path = tmp_path / "a.wav"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
        assert "holds no video" in self.error(path)

    def test_camera_and_stream(self):
        assert "is no camera" in self.error("camera:front")
        with pytest.raises(InputError, match=r"connect the camera|through Video4Linux"):
            VideoReader("camera:987")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert "cannot be reached" in self.error(f"rtsp://127.0.0.1:{port}/x")


class TestWriting:
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = written(tmp_path / "a.mp4", frames(2))
        before = path.read_bytes()
        with pytest.raises(KeyboardInterrupt), write_video(path, 25) as writer:
            writer.write(frames(1)[0])
            raise KeyboardInterrupt
        assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

    def test_no_frame(self, tmp_path):
        with pytest.raises(EdgesegError, match="there was no frame"), write_video(tmp_path / "a.mp4", 25):
            pass
        assert not list(tmp_path.iterdir())

    def test_frames_of_two_sizes(self, tmp_path):
        with pytest.raises(ValueError, match=r"the first was \(48, 64\), got \(48, 66\)"):
            written(tmp_path / "a.mp4", [*frames(1), *frames(1, 48, 66)])
        assert not list(tmp_path.iterdir())

    def test_disk_full(self, tmp_path):
        resource = pytest.importorskip("resource")
        noise = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
        try:
            with pytest.raises(EdgesegError, match=r"cannot write .*a\.mp4: .*; free some space"):
                written(tmp_path / "a.mp4", list(noise))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())

    def test_wrong_names(self, tmp_path):
        with pytest.raises(ValueError, match=r"a video ends in one of .*, got a\.png"):
            written(tmp_path / "a.png", frames(1))
        with pytest.raises(InputError, match="does not exist; make it first"):
            written(tmp_path / "none" / "a.mp4", frames(1))


def test_kinds_of_source():
    assert is_video("x/drive.MP4") and is_video("camera:0") and is_video("rtsp://host/1") and not is_video("a.jpg")
    assert is_live("camera:0") and is_live("rtsp://host/1") and not is_live("drive.mp4")
