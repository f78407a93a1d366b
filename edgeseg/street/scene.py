"""The camera, the light and the two canvases of a drawn street scene."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)  # ids of CamVid

SCALE = 2  # drawn at twice the size: the picture is averaged down, the labels take every second pixel
FAR = 140.0  # where the street ends, in metres

Colour = tuple[float, float, float]
Thing = tuple[float, Callable[[], None]]  # distance, and what draws it


@dataclass
class Scene:
    """Camera, light and the two canvases."""

    rng: np.random.RandomState
    picture: Image.Image
    labels: Image.Image
    focal: float  # pixels
    centre: tuple[float, float]  # vanishing point, (x, y) in pixels
    eye: float  # height of the camera
    road: tuple[float, float]  # X of the kerbs
    pavement: float  # width
    haze: Colour
    sunny_side: int  # -1 or 1: the side whose walls the sun reaches

    @classmethod
    def random(cls, rng: np.random.RandomState, size: tuple[int, int]) -> "Scene":
        height, width = size[0] * SCALE, size[1] * SCALE
        zenith = mix((96, 138, 190), (150, 160, 172), rng.rand())
        haze = mix((214, 224, 232), (226, 220, 208), rng.rand())
        horizon = height * rng.uniform(0.42, 0.52)
        rows = np.linspace(0, height / horizon, height).clip(0, 1)[:, None, None] ** 0.8
        sky = (1 - rows) * np.array(zenith) + rows * np.array(haze)
        clouds = np.clip(_smooth_noise(rng, (height, width), 5, 4) * 1.6 - 0.2, 0, 1)[..., None] * rng.uniform(0.2, 0.9)
        sky = sky * (1 - clouds) + 244 * clouds
        middle = rng.uniform(-2.2, 2.2)  # of the road, seen from the camera
        half = rng.uniform(3.2, 4.8)
        return cls(
            rng=rng,
            picture=Image.fromarray(sky.astype(np.uint8)),
            labels=Image.new("L", (width, height), SKY),
            focal=max(height, width) * rng.uniform(0.75, 0.95),
            centre=(width * rng.uniform(0.4, 0.6), horizon),
            eye=rng.uniform(1.4, 2.0),
            road=(middle - half, middle + half),
            pavement=rng.uniform(2.0, 3.6),
            haze=haze,
            sunny_side=int(rng.choice([-1, 1])),
        )

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        return self.centre[0] + self.focal * x / z, self.centre[1] + self.focal * (self.eye - y) / z

    def seen(self, colour: Colour, z: float) -> tuple[int, ...]:
        """A colour through the air of that distance."""
        return tuple(int(v) for v in mix(colour, self.haze, min(0.75, z / FAR * 0.8)))

    def polygon(self, corners: Sequence[tuple[float, float, float]], colour: Colour, label: int | None) -> None:
        points = [self.project(*corner) for corner in corners]
        z = min(corner[2] for corner in corners)
        ImageDraw.Draw(self.picture).polygon(points, fill=self.seen(colour, z))
        if label is not None:
            ImageDraw.Draw(self.labels).polygon(points, fill=label)

    def ellipse(
        self, centre: tuple[float, float, float], radii: tuple[float, float], colour: Colour, label: int | None
    ):
        x, y = self.project(*centre)
        rx, ry = (self.focal * radius / centre[2] for radius in radii)
        box = (x - rx, y - ry, x + rx, y + ry)
        ImageDraw.Draw(self.picture).ellipse(box, fill=self.seen(colour, centre[2]))
        if label is not None:
            ImageDraw.Draw(self.labels).ellipse(box, fill=label)

    def ring(self, centre: tuple[float, float, float], radius: float, colour: Colour, label: int) -> None:
        x, y = self.project(*centre)
        r = self.focal * radius / centre[2]
        box, line = (x - r, y - r, x + r, y + r), max(1, round(r / 6))
        ImageDraw.Draw(self.picture).ellipse(box, outline=self.seen(colour, centre[2]), width=line)
        ImageDraw.Draw(self.labels).ellipse(box, fill=label)

    def upright(
        self, x: float, y: tuple[float, float], z: float, width: float, colour: Colour, label: int | None
    ) -> None:
        """A rectangle facing the camera, `width` wide around x, from y[0] up to y[1]."""
        left, right = x - width / 2, x + width / 2
        self.polygon([(left, y[0], z), (right, y[0], z), (right, y[1], z), (left, y[1], z)], colour, label)

    def wall(self, x: float, y: tuple[float, float], z: tuple[float, float], colour: Colour, label: int | None) -> None:
        """A rectangle along the street, at one x."""
        self.polygon([(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])], colour, label)

    def floor(self, x: tuple[float, float], z: tuple[float, float], colour: Colour, label: int | None) -> None:
        self.polygon([(x[0], 0, z[0]), (x[1], 0, z[0]), (x[1], 0, z[1]), (x[0], 0, z[1])], colour, label)


def developed(scene: Scene) -> np.ndarray:
    """The picture averaged down, with uneven light, grain and a darker rim, as a camera would have it."""
    rng = scene.rng
    width, height = scene.picture.width // SCALE, scene.picture.height // SCALE
    picture = np.asarray(scene.picture.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    texture = (
        0.92 + 0.10 * _smooth_noise(rng, (height, width), 12, 6) + 0.06 * _smooth_noise(rng, (height, width), 60, 60)
    )
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rim = 1 - 0.14 * (x**2 + y**2) / 2
    grain = rng.normal(0, 3.5, (height, width, 1)) + rng.normal(0, 1.5, (height, width, 3))
    return np.clip(picture * (texture * rim)[..., None] + grain, 0, 255).astype(np.uint8)


def _smooth_noise(rng: np.random.RandomState, size: tuple[int, int], columns: int, rows: int) -> np.ndarray:
    """Bicubic noise between 0 and 1 with about that many bumps across and down."""
    coarse = Image.fromarray(rng.rand(rows, columns).astype(np.float32))
    return np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)).clip(0, 1)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    a, b, c = (f + (s - f) * share for f, s in zip(first, second, strict=True))
    return a, b, c


def shade(colour: Colour, light: float) -> Colour:
    a, b, c = (min(255.0, max(0.0, v * light)) for v in colour)
    return a, b, c
