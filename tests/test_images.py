"""Pictures and label images in and out, and files that are whole or not there."""

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.errors import EdgesegError, InputError
from edgeseg.files import make_folder, replacing, write_atomically, write_error
from edgeseg.images import find_images, load_image, load_labels, save_image, save_labels
from edgeseg.labels import LABEL_SETS, generic_label_set

RED, GREEN, BLUE, YELLOW = (200, 10, 20), (10, 190, 30), (20, 30, 210), (220, 210, 40)
CORNERS = np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)  # as the photographer saw it


@pytest.fixture
def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


class TestLoadImage:
    def test_rgb_png_is_exact_contiguous_and_writable(self, tmp_path, photograph):
        image = load_image(saved(tmp_path / "a.png", Image.fromarray(photograph)))
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
        np.testing.assert_array_equal(image, photograph)

    def test_one_pixel(self, tmp_path):
        image = load_image(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), RED)))
        assert image.tolist() == [[list(RED)]]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path, orientation):
        """The eight ways a camera stores one view, written out by hand from the EXIF standard's table."""
        (a, b), (c, d) = CORNERS
        stored = {
            1: [[a, b], [c, d]],
            2: [[b, a], [d, c]],
            3: [[d, c], [b, a]],
            4: [[c, d], [a, b]],
            5: [[a, c], [b, d]],
            6: [[b, d], [a, c]],
            7: [[d, b], [c, a]],
            8: [[c, a], [d, b]],
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / "a.png", Image.fromarray(np.array(stored, np.uint8)), exif=exif)
        np.testing.assert_array_equal(load_image(path), CORNERS)

    def test_exif_orientation_of_jpeg_turns_the_size(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        assert load_image(saved(tmp_path / "a.jpg", Image.new("RGB", (30, 20)), exif=exif)).shape == (30, 20, 3)

    def test_grey_and_one_bit(self, tmp_path):
        grey = np.array([[0, 7, 255]], np.uint8)
        image = load_image(saved(tmp_path / "l.png", Image.fromarray(grey)))
        np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, 2))
        bits = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
        assert load_image(saved(tmp_path / "1.png", bits))[0, :, 0].tolist() == [0, 255, 255]

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_sixteen_bits_by_full_range_to_nearest(self, tmp_path, suffix):
        values = np.array([[0, 128, 129, 257, 4095, 32767, 32896, 65535]], np.uint16)
        image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(values)))
        expected = [round(int(v) * 255 / 65535) for v in values[0]]
        assert image[0, :, 0].tolist() == expected and (image[..., 0] == image[..., 2]).all()

    def test_transparency_shows_white(self, tmp_path):
        pixels = np.array([[(10, 20, 30, 0), (10, 20, 30, 255), (0, 0, 0, 128)]], np.uint8)
        image = load_image(saved(tmp_path / "a.png", Image.fromarray(pixels)))
        assert image[0, 0].tolist() == [255, 255, 255] and image[0, 1].tolist() == [10, 20, 30]
        assert abs(int(image[0, 2, 0]) - 127) <= 1

    def test_grey_with_alpha(self, tmp_path):
        pixels = np.array([[(40, 0), (40, 255)]], np.uint8)
        image = load_image(saved(tmp_path / "a.png", Image.fromarray(pixels, "LA")))
        assert image[0, :, 1].tolist() == [255, 40]

    def test_palette_with_and_without_transparent_entry(self, tmp_path):
        image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        image.putpalette([*RED, *GREEN])
        assert load_image(saved(tmp_path / "a.png", image)).tolist() == [[list(RED), list(GREEN)]]
        assert load_image(saved(tmp_path / "b.png", image, transparency=0)).tolist() == [[[255] * 3, list(GREEN)]]

    def test_cmyk_jpeg(self, tmp_path):
        image = load_image(saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95))
        assert image[..., 0].min() > 230 and image[..., 1:].max() < 40  # magenta and yellow ink make red

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
        path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
        assert load_image(path)[0, 0].tolist() == list(RED)

    def test_twelve_megapixels(self, tmp_path):
        assert load_image(saved(tmp_path / "a.jpg", Image.new("RGB", (4000, 3000), RED))).shape == (3000, 4000, 3)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_damaged_exif_does_not_cost_the_picture(self, tmp_path, photograph):
        path = saved(tmp_path / "a.png", Image.fromarray(photograph), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
        assert load_image(path).shape == photograph.shape


@pytest.mark.filterwarnings("ignore:::PIL")
class TestUnreadableImages:
    def error(self, path: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_image(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message and ";" in message  # names the file, says what to do
        return message

    def test_missing(self, tmp_path):
        assert "does not exist" in self.error(tmp_path / "none.png")

    def test_directory(self, tmp_path):
        assert "is not a file" in self.error(tmp_path)

    def test_text_and_empty(self, tmp_path):
        (tmp_path / "text.png").write_text("this is no image\n" * 30)
        (tmp_path / "empty.png").touch()
        assert "not an image" in self.error(tmp_path / "text.png")
        assert "is empty" in self.error(tmp_path / "empty.png")

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
    def test_truncated(self, tmp_path, suffix, share):
        noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path = saved(tmp_path / f"a{suffix}", Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        self.error(path)

    @pytest.mark.parametrize("seed", range(20))
    def test_flipped_bytes_never_escape_as_another_exception(self, tmp_path, photograph, seed):
        rng = np.random.default_rng(seed)
        path = saved(tmp_path / ("a.png" if seed % 2 else "a.tif"), Image.fromarray(photograph))
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), 6):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            assert load_image(path).ndim == 3
        except InputError as error:
            assert str(path) in str(error)

    def test_decompression_bomb(self, tmp_path):
        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        path = tmp_path / "bomb.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        )
        assert "too large" in self.error(path)

    def test_floating_point_and_32_bit(self, tmp_path):
        floats = saved(tmp_path / "f.tif", Image.fromarray(np.ones((2, 2), np.float32)))
        assert "floating-point" in self.error(floats)
        wide = saved(tmp_path / "i.tif", Image.fromarray(np.full((2, 2), 70000, np.int32)))
        assert "70000" in self.error(wide)


class TestFindImages:
    def test_natural_order_hidden_files_and_suffixes(self, tmp_path):
        for name in ("f10.png", "f2.JPG", "f1.webp", "notes.txt", "._f1.png"):
            (tmp_path / name).touch()
        assert [path.name for path in find_images([tmp_path])] == ["f1.webp", "f2.JPG", "f10.png"]

    def test_files_are_taken_as_given_and_once(self, tmp_path):
        (tmp_path / "b.png").touch()
        (tmp_path / "a.dat").touch()
        found = find_images([tmp_path / "b.png", tmp_path / "a.dat", tmp_path])
        assert [path.name for path in found] == ["b.png", "a.dat"]

    def test_recursive(self, tmp_path):
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "a.png").touch()
        with pytest.raises(InputError, match="1 lie in folders below"):
            find_images([tmp_path])
        assert [path.name for path in find_images([tmp_path], recursive=True)] == ["a.png"]

    def test_empty_folder_and_missing_path(self, tmp_path):
        with pytest.raises(InputError, match="holds no image"):
            find_images([tmp_path])
        with pytest.raises(InputError, match=r"none\.jpg does not exist"):
            find_images([tmp_path / "none.jpg"])


class TestLabelImages:
    @pytest.mark.parametrize("name", LABEL_SETS)
    def test_ids_survive_and_colours_show(self, tmp_path, name):
        label_set = LABEL_SETS[name]
        labels = np.append(np.arange(label_set.num_classes), 255).astype(np.uint8)[None]
        save_labels(tmp_path / "a.png", labels, label_set)
        with Image.open(tmp_path / "a.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), labels)
            colours = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(colours[0, :-1], label_set.palette)
        np.testing.assert_array_equal(load_labels(tmp_path / "a.png"), labels)

    def test_one_byte_a_pixel_even_for_two_classes(self, tmp_path):
        """Few palette entries would be stored with fewer bits, which some readers take for other ids."""
        save_labels(tmp_path / "a.png", np.array([[0, 1]], np.uint8), generic_label_set(2))
        assert (tmp_path / "a.png").read_bytes()[24] == 8  # bit depth in IHDR

    def test_non_contiguous_and_single_pixel(self, tmp_path):
        labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 5
        save_labels(tmp_path / "a.png", labels.T[::-1], generic_label_set(5))
        np.testing.assert_array_equal(load_labels(tmp_path / "a.png"), labels.T[::-1])
        save_labels(tmp_path / "b.png", labels[:1, :1], generic_label_set(5))
        assert load_labels(tmp_path / "b.png").shape == (1, 1)

    def test_wrong_arguments(self, tmp_path):
        labels = np.array([[0, 11, 12, 255]], np.uint8)
        with pytest.raises(ValueError, match="ids 11, 12"):
            save_labels(tmp_path / "a.png", labels, LABEL_SETS["camvid"])
        with pytest.raises(ValueError, match=r"\(H, W\) uint8, got \(1, 4\) int64"):
            save_labels(tmp_path / "a.png", labels.astype(np.int64), LABEL_SETS["camvid"])
        with pytest.raises(ValueError, match="PNG"):
            save_labels(tmp_path / "a.jpg", labels, LABEL_SETS["camvid"])
        assert not list(tmp_path.iterdir())

    def test_reading(self, tmp_path):
        ids = np.array([[0, 3, 255]], np.uint8)
        assert load_labels(saved(tmp_path / "l.png", Image.fromarray(ids))).tolist() == [[0, 3, 255]]
        assert load_labels(saved(tmp_path / "w.png", Image.fromarray(ids.astype(np.uint16)))).tolist() == [[0, 3, 255]]
        with pytest.raises(InputError, match=r"c\.png is a label image in colours \(RGB\)"):
            load_labels(saved(tmp_path / "c.png", Image.new("RGB", (2, 2))))
        with pytest.raises(InputError, match="ids up to 26001"):
            load_labels(saved(tmp_path / "i.png", Image.fromarray(np.array([[26001]], np.uint16))))


class TestSaveImage:
    def test_png_is_exact_jpeg_is_near(self, tmp_path, photograph):
        save_image(tmp_path / "a.png", photograph[:, ::-1])
        np.testing.assert_array_equal(load_image(tmp_path / "a.png"), photograph[:, ::-1])
        smooth = np.full((16, 16, 3), 90, np.uint8)
        save_image(tmp_path / "a.JPG", smooth)
        assert np.abs(load_image(tmp_path / "a.JPG").astype(int) - smooth).max() < 4

    def test_wrong_arguments(self, tmp_path, photograph):
        with pytest.raises(ValueError, match=r"must end in one of \.png"):
            save_image(tmp_path / "a.tga", photograph)
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
            save_image(tmp_path / "a.png", photograph.astype(np.float32))


class TestFiles:
    def test_replaces_in_one_step_and_leaves_nothing_behind(self, tmp_path):
        path = tmp_path / "a.bin"
        write_atomically(path, b"old")
        write_atomically(path, b"new", durable=True)
        assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]

    def test_follows_the_umask(self, tmp_path):
        before = os.umask(0o027)
        try:
            write_atomically(tmp_path / "a.bin", b"x")
        finally:
            os.umask(before)
        assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    def test_an_interrupted_write_keeps_the_old_file(self, tmp_path, kind):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        with pytest.raises(kind), replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise kind
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

    def test_disk_full(self, tmp_path):
        """A real failing write: the process may not write files beyond 64 kB for a moment."""
        resource = pytest.importorskip("resource")
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
        try:
            with pytest.raises(EdgesegError, match=r"cannot write .*a\.bin: .*; free some space"):
                write_atomically(path, bytes(200_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

    def test_no_space_reads_as_disk_full(self, tmp_path):
        error = write_error(tmp_path / "a", OSError(errno.ENOSPC, "No space left on device"))
        assert "No space left on device; free some space" in str(error)

    def test_folder_that_may_not_be_written_to(self, tmp_path):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555)
        if os.access(folder, os.W_OK):  # root may write anywhere but into the kernel's own files
            folder = Path("/sys/kernel")
            if not folder.is_dir():
                pytest.skip("no folder here that root may not write to")
        with pytest.raises(InputError, match="choose a folder that you may write to"):
            write_atomically(folder / "a.png", b"x")

    def test_wrong_paths(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="does not exist; make it first"):
            write_atomically(tmp_path / "none" / "a.png", b"x")
        with pytest.raises(InputError, match="is not a folder"):
            write_atomically(tmp_path / "file" / "a.png", b"x")
        with pytest.raises(InputError, match="it is a folder"):
            write_atomically(tmp_path, b"x")
        with pytest.raises(InputError, match="a file of that name is in the way"):
            make_folder(tmp_path / "file")
        assert make_folder(tmp_path / "new" / "deep").is_dir()
