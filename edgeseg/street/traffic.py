"""What stands and moves in a drawn street: lamps, signs, trees, people, cars, bicycles."""

from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

from edgeseg.street.houses import tree
from edgeseg.street.scene import BICYCLIST, CAR, PEDESTRIAN, POLE, SIGN, Scene, Thing, mix, shade


def street_furniture(scene: Scene) -> list[Thing]:
    rng, things = scene.rng, []
    for side, kerb in ((-1, scene.road[0]), (1, scene.road[1])):
        for z in np.arange(rng.uniform(7, 12), 100, rng.uniform(14, 20)):
            things.append((float(z), _lamp(scene, kerb + side * 0.5, side, float(z))))
        for _ in range(rng.randint(1, 4)):
            z = rng.uniform(7, 34)
            things.append((z, _sign(scene, kerb + side * rng.uniform(0.4, 0.9), z)))
        for _ in range(rng.randint(0, 4)):
            z = rng.uniform(9, 60)
            things.append((z, tree(scene, kerb + side * rng.uniform(0.8, 1.4), z)))
        for _ in range(rng.randint(1, 5)):
            z = rng.uniform(5.5, 32)
            things.append((z, _person(scene, kerb + side * rng.uniform(0.8, scene.pavement - 0.3), z)))
    return things


def _lamp(scene: Scene, x: float, side: int, z: float) -> Callable[[], None]:
    height = scene.rng.uniform(5.5, 8)

    def draw() -> None:
        scene.upright(x, (0, height), z, 0.14, (92, 94, 92), POLE)
        scene.upright(x, (0, 1.1), z, 0.22, (80, 82, 80), POLE)
        scene.upright(x - side * 0.6, (height - 0.1, height), z, 1.3, (92, 94, 92), POLE)
        scene.ellipse((x - side * 1.2, height - 0.12, z), (0.3, 0.1), (210, 208, 196), POLE)

    return draw


def _sign(scene: Scene, x: float, z: float) -> Callable[[], None]:
    kind = scene.rng.randint(3)

    def draw() -> None:
        scene.upright(x, (0, 2.5), z, 0.08, (128, 130, 130), POLE)
        if kind == 0:
            scene.ellipse((x, 2.6, z), (0.38, 0.38), (196, 36, 40), SIGN)
            scene.ellipse((x, 2.6, z), (0.27, 0.27), (240, 240, 236), SIGN)
        elif kind == 1:
            scene.upright(x, (2.2, 3.0), z, 0.62, (38, 84, 168), SIGN)
            scene.upright(x, (2.35, 2.85), z, 0.16, (236, 236, 236), SIGN)
        else:
            scene.polygon([(x - 0.45, 2.2, z), (x + 0.45, 2.2, z), (x, 3.0, z)], (200, 40, 40), SIGN)
            scene.polygon([(x - 0.28, 2.3, z), (x + 0.28, 2.3, z), (x, 2.8, z)], (244, 240, 228), SIGN)

    return draw


def _person(scene: Scene, x: float, z: float, *, label: int = PEDESTRIAN, lift: float = 0.0) -> Callable[[], None]:
    rng = scene.rng
    height, stride = rng.uniform(1.55, 1.85), rng.uniform(0.08, 0.24)
    coat = tuple(rng.uniform(25, 190, 3))
    trousers = shade([(46, 52, 76), (40, 38, 38), (96, 84, 68)][rng.randint(3)], rng.uniform(0.8, 1.2))
    skin = mix((226, 184, 156), (118, 82, 62), rng.rand())

    def draw() -> None:
        def at(y: float) -> float:
            return lift + y * height

        if lift == 0:
            scene.ellipse((x, 0.0, z), (0.42, 0.06), (70, 70, 72), None)
        for foot in (-stride, stride):
            leg = [
                (x + foot - 0.08, at(0), z),
                (x + foot + 0.08, at(0), z),
                (x + 0.13, at(0.5), z),
                (x - 0.13, at(0.5), z),
            ]
            scene.polygon(leg, trousers, label)
        torso = [(x - 0.19, at(0.46), z), (x + 0.19, at(0.46), z), (x + 0.23, at(0.8), z), (x - 0.23, at(0.8), z)]
        scene.polygon(torso, coat, label)
        for arm in (-1, 1):
            scene.polygon(
                [
                    (x + arm * 0.2, at(0.8), z),
                    (x + arm * 0.28, at(0.78), z),
                    (x + arm * 0.3, at(0.48), z),
                    (x + arm * 0.22, at(0.48), z),
                ],
                shade(coat, 0.8),
                label,
            )
        scene.ellipse((x, at(0.81), z), (0.2, 0.05), coat, label)
        scene.ellipse((x, at(0.91), z), (0.1, 0.13), skin, label)
        scene.ellipse((x, at(0.945), z), (0.105, 0.085), shade(skin, 0.35), label)

    return draw


def traffic(scene: Scene) -> list[Thing]:
    rng, (left, right), things = scene.rng, scene.road, []
    for kerb, side in ((left, 1), (right, -1)):  # parked along the kerbs
        z = rng.uniform(6, 14)
        while z < 70:
            if rng.rand() < 0.6:
                things.append((z, _car(scene, kerb + side * 1.05, z)))
            z += rng.uniform(5.5, 12)
    for _ in range(rng.randint(1, 4)):  # and under way
        z = rng.uniform(12, 60)
        things.append((z, _car(scene, (left + right) / 2 + rng.choice([-1, 1]) * 0.25 * (right - left) * 0.7, z)))
    for _ in range(rng.randint(1, 3)):
        z = rng.uniform(7, 24)
        x = (left + right) / 2 + rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)
        things.append((z, _bicyclist(scene, x, z)))
    return things


def _car(scene: Scene, x: float, z: float) -> Callable[[], None]:
    rng = scene.rng
    paints = [(176, 30, 32), (40, 56, 104), (196, 198, 200), (30, 32, 34), (228, 228, 224), (92, 98, 104), (46, 92, 78)]
    paint = shade(paints[rng.randint(len(paints))], rng.uniform(0.9, 1.1))
    length, half, top = rng.uniform(3.7, 4.6), rng.uniform(0.82, 0.92), rng.uniform(1.38, 1.62)

    def draw() -> None:
        glass, far = (48, 58, 68), z + length
        flank = x - half if x > 0 else x + half  # the side that the camera sees
        inner = flank + (0.16 if x > 0 else -0.16)
        scene.floor((x - half - 0.1, x + half + 0.1), (z - 0.15, far), (44, 44, 46), None)
        scene.wall(flank, (0.25, 0.92), (z, far), shade(paint, 0.72), CAR)
        cabin = [(flank, 0.9, z + 0.3), (flank, 0.9, far - 1.1), (inner, top, far - 1.9), (inner, top, z + 0.8)]
        scene.polygon(cabin, shade(glass, 0.9), CAR)
        scene.polygon(
            [(x - half, 0.92, z), (x + half, 0.92, z), (x + half, 0.92, far), (x - half, 0.92, far)], paint, CAR
        )
        roof = [(x - half + 0.16, top, z + 0.8), (x + half - 0.16, top, z + 0.8)]
        scene.polygon(
            [*roof, (x + half - 0.16, top, far - 1.9), (x - half + 0.16, top, far - 1.9)], shade(paint, 1.1), CAR
        )
        for axle in (z + 0.75, far - 0.8):
            x0, y0 = scene.project(flank, 0.62, axle - 0.32)
            x1, y1 = scene.project(flank, 0.0, axle + 0.32)
            box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            ImageDraw.Draw(scene.picture).ellipse(box, fill=scene.seen((26, 26, 28), z))
            ImageDraw.Draw(scene.labels).ellipse(box, fill=CAR)
        for wheel in (x - half + 0.16, x + half - 0.16):
            scene.upright(wheel, (0.0, 0.4), z, 0.22, (24, 24, 26), CAR)
        scene.upright(x, (0.28, 0.95), z, 2 * half, paint, CAR)
        scene.polygon([(x - half + 0.03, 0.95, z), (x + half - 0.03, 0.95, z), roof[1], roof[0]], paint, CAR)
        scene.polygon(
            [
                (x - half + 0.14, 1.0, z),
                (x + half - 0.14, 1.0, z),
                (x + half - 0.25, top - 0.08, z + 0.7),
                (x - half + 0.25, top - 0.08, z + 0.7),
            ],
            glass,
            CAR,
        )
        for lamp in (x - half + 0.17, x + half - 0.17):
            scene.upright(lamp, (0.66, 0.86), z, 0.26, (190, 34, 30), CAR)
        scene.upright(x, (0.52, 0.66), z, 0.5, (232, 214, 90), CAR)
        scene.upright(x, (0.28, 0.4), z, 2 * half, shade(paint, 0.55), CAR)

    return draw


def _bicyclist(scene: Scene, x: float, z: float) -> Callable[[], None]:
    rider = _person(scene, x, z, label=BICYCLIST, lift=0.35)

    def draw() -> None:
        for wheel in (x - 0.42, x + 0.42):
            scene.ring((wheel, 0.34, z), 0.34, (30, 30, 32), BICYCLIST)
        scene.polygon([(x - 0.42, 0.34, z), (x, 0.82, z), (x + 0.42, 0.34, z), (x, 0.42, z)], (150, 40, 44), BICYCLIST)
        rider()
        scene.upright(x + 0.3, (1.0, 1.06), z, 0.3, (40, 40, 42), BICYCLIST)

    return draw
