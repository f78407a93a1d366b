"""The ground of a drawn street, and what stands behind its pavements: houses, fences, gardens."""

from collections.abc import Callable

import numpy as np

from edgeseg.street.scene import BUILDING, FAR, FENCE, PAVEMENT, ROAD, TREE, Scene, Thing, mix, shade


def ground(scene: Scene) -> None:
    rng, (left, right) = scene.rng, scene.road
    near = 0.6
    grey = rng.uniform(84, 112)
    asphalt = (grey, grey * 0.99, grey * 1.02)
    slabs = mix((168, 160, 150), (150, 150, 152), rng.rand())
    for z in np.geomspace(FAR, near, 60):  # in strips, so that the haze deepens with distance
        reach = (float(z), float(min(z * 1.12, FAR * 1.2)))
        scene.floor((-400, 400), reach, mix(slabs, (120, 128, 96), 0.35), PAVEMENT)
        scene.floor((left - scene.pavement, right + scene.pavement), reach, slabs, PAVEMENT)
        scene.floor((left, right), reach, asphalt, ROAD)
        for kerb, side in ((left, -1), (right, 1)):
            scene.floor((kerb, kerb + side * 0.18), reach, (196, 192, 186), PAVEMENT)
            scene.floor((kerb - side * 0.35, kerb - side * 0.27), reach, (206, 196, 120), ROAD)
    middle = (left + right) / 2
    for z in np.arange(2.0, FAR, 6.0):
        scene.floor((middle - 0.07, middle + 0.07), (z, z + 2.5), (220, 220, 214), ROAD)
    for z in np.arange(1.5, 40, 1.2):
        for start in (left - scene.pavement, right + 0.18):
            scene.floor((start, start + scene.pavement - 0.18), (z, z + 0.03), shade(slabs, 0.86), PAVEMENT)
    for _ in range(rng.randint(2, 6)):  # shadows of what stands on the dark side
        z, edge = rng.uniform(4, 60), right if scene.sunny_side < 0 else left
        inward = -np.sign(edge - middle)
        length = rng.uniform(1.5, right - left)
        shadow = [
            (edge, 0, z),
            (edge + inward * length, 0, z + 2),
            (edge + inward * length, 0, z + 7),
            (edge, 0, z + 9),
        ]
        scene.polygon(shadow, shade(asphalt, 0.72), ROAD)


def blocks(scene: Scene) -> list[Thing]:
    """Houses, trees and fences behind the pavements, and what closes the street far away."""
    rng, things = scene.rng, []
    things.append((FAR, lambda: _far_end(scene)))
    for side in (-1, 1):
        front = (scene.road[0] if side < 0 else scene.road[1]) + side * scene.pavement
        z = rng.uniform(1.2, 4.0)
        while z < FAR * 0.8:
            length = rng.uniform(7, 17)
            if rng.rand() < 0.74:
                things.append((z, _house(scene, side, front, (z, z + length))))
            else:
                things.append((z, _fence(scene, front, (z, z + length))))
                for _ in range(rng.randint(1, 4)):
                    tree_z = z + rng.uniform(0.2, 0.9) * length
                    things.append((tree_z, tree(scene, front + side * rng.uniform(1.5, 5), tree_z)))
            z += length + (rng.uniform(0, 2.5) if rng.rand() < 0.3 else 0)
    return things


def _far_end(scene: Scene) -> None:
    rng = scene.rng
    for x in np.arange(-200, 200, 9.0):
        if rng.rand() < 0.6:
            scene.ellipse((x, 3, FAR), (rng.uniform(6, 11), rng.uniform(4, 9)), (78, 96, 66), TREE)
        else:
            scene.upright(x, (0, rng.uniform(7, 15)), FAR, 11, (146, 128, 116), BUILDING)


def _house(scene: Scene, side: int, front: float, z: tuple[float, float]) -> Callable[[], None]:
    rng = scene.rng
    walls = [(156, 92, 74), (186, 164, 136), (206, 198, 184), (132, 106, 92), (172, 128, 98), (148, 146, 144)]
    colour = shade(walls[rng.randint(len(walls))], rng.uniform(0.85, 1.08))
    lit = 1.0 if side == scene.sunny_side else 0.66
    floors, storey = rng.randint(2, 6), rng.uniform(2.8, 3.4)
    height = floors * storey + 0.6
    gabled, bay = rng.rand() < 0.5, rng.uniform(2.2, 3.4)
    window = mix((52, 62, 76), (150, 172, 190), rng.rand() * 0.6)
    shop = shade([(70, 88, 72), (120, 54, 50), (58, 66, 92), (92, 84, 74)][rng.randint(4)], lit)

    def draw() -> None:
        depth = front + side * 10
        scene.polygon(  # the end wall, across the street
            [(front, 0, z[0]), (depth, 0, z[0]), (depth, height, z[0]), (front, height, z[0])],
            shade(colour, 0.8),
            BUILDING,
        )
        scene.wall(front, (0, height), z, shade(colour, lit), BUILDING)
        if gabled:
            ridge = front + side * 5
            gable = [(front, height, z[0]), (depth, height, z[0]), (ridge, height + 3, z[0])]
            scene.polygon(gable, shade(colour, 0.8), BUILDING)
            roof = [(front, height, z[0]), (front, height, z[1]), (ridge, height + 3, z[1]), (ridge, height + 3, z[0])]
            scene.polygon(roof, shade((112, 74, 66), lit), BUILDING)
        else:
            scene.wall(front - side * 0.1, (height - 0.5, height), z, shade(colour, lit * 1.15), BUILDING)
        scene.wall(front, (0, 0.5), z, shade(colour, lit * 0.7), BUILDING)
        columns = max(1, int((z[1] - z[0]) // bay))
        pitch = (z[1] - z[0]) / columns
        for column in range(columns):
            start = z[0] + column * pitch
            scene.wall(front, (0.5, storey - 0.5), (start + 0.25, start + pitch - 0.25), shop, BUILDING)
            scene.wall(front, (0.9, storey - 0.9), (start + 0.4, start + pitch - 0.4), shade(window, 0.8), BUILDING)
            for floor in range(1, floors):
                sill = floor * storey + 0.8
                opening = (start + pitch * 0.27, start + pitch * 0.73)
                scene.wall(
                    front, (sill - 0.15, sill + 1.65), (opening[0] - 0.1, opening[1] + 0.1), (222, 218, 208), None
                )
                scene.wall(front, (sill, sill + 1.5), opening, shade(window, lit), None)

    return draw


def _fence(scene: Scene, front: float, z: tuple[float, float]) -> Callable[[], None]:
    height = scene.rng.uniform(1.0, 2.0)
    colour = [(116, 92, 66), (88, 96, 92), (150, 146, 138)][scene.rng.randint(3)]

    def draw() -> None:
        scene.wall(front, (0, height), z, colour, FENCE)
        for post in np.arange(z[1], z[0], -0.6):
            scene.wall(front, (0, height), (post - 0.05, post), shade(colour, 0.72), FENCE)
        scene.wall(front, (height - 0.12, height), z, shade(colour, 1.15), FENCE)

    return draw


def tree(scene: Scene, x: float, z: float) -> Callable[[], None]:
    rng = scene.rng
    height, spread = rng.uniform(4.5, 9), rng.uniform(1.2, 2.6)
    green = mix((62, 88, 42), (104, 112, 56), rng.rand())
    leaves = []
    for _ in range(90):
        angle, distance, up = rng.uniform(0, 2 * np.pi), np.sqrt(rng.rand()) * spread, rng.uniform(-1, 1)
        where = (x + np.cos(angle) * distance, height * 0.68 + up * height * 0.3, z)
        light = 0.82 + 0.28 * up + 0.14 * np.cos(angle) * scene.sunny_side * -1 + rng.uniform(-0.16, 0.16)
        leaves.append((where, rng.uniform(0.25, 0.7), shade(green, light)))

    def draw() -> None:
        scene.upright(x, (0, height * 0.6), z, 0.28, (82, 68, 54), TREE)
        for where, radius, colour in leaves:
            scene.ellipse(where, (radius, radius * 0.85), colour, TREE)

    return draw
