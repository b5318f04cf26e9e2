"""Digits: which method moves one handwritten digit onto another, and how it looks.

The setting is that of the SNS paper: 784 pixels, epsilon 1/1200 of the largest
cost, squared Euclidean (W2) and L1 (W1) distance of pixels.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import jaxsns
from experiments import measure, problems, record

EPSILON = 1 / 1200
TOLERANCE = 1e-8
FIRST, SECOND = (0, 0), (1, 0)  # digit, and which of that digit
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Case(NamedTuple):
    """A cost, and how long a warm-up published SNS is given for it."""

    name: str
    power: int
    warm_up: int
    kept: int


CASES = (Case("MNIST W2", 2, 20, 15), Case("MNIST W1", 1, 700, 30))


def methods(case: Case) -> dict[str, tuple[Any, int | None]]:
    """Name, method and step limit of what is compared."""
    sns = jaxsns.SNSOptions(kept=case.kept, warm_up=case.warm_up)
    plain = jaxsns.SinkhornOptions(overrelaxation=False)
    return {
        "auto": ("auto", None),
        "SNS as published": (sns, case.warm_up + 100),
        "Sinkhorn, over-relaxed": ("sinkhorn", None),
        "Sinkhorn, plain": (plain, 20_000),
    }


def interpolate(plan: np.ndarray, time: float) -> np.ndarray:
    """[28, 28] mass that has gone the fraction `time` of its way, pixel to pixel.

    Each entry of the plan is dropped where it stands, on the four nearest pixels.
    """
    side = problems.SIDE
    position = problems.pixel_positions()
    place = (1 - time) * position[:, None] + time * position[None]
    corner = np.minimum(place.astype(int), side - 2)
    part = place - corner
    image = np.zeros(side * side)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - part[..., 0]) * np.abs(1 - right - part[..., 1])
            index = (corner[..., 0] + down) * side + corner[..., 1] + right
            image += np.bincount(
                index.ravel(), (plan * share).ravel(), minlength=side * side
            )
    return image.reshape(side, side)


def run() -> dict[str, list[np.ndarray]]:
    """Compare the methods, print the table; images on the way for each cost."""
    rows, images = [], {}
    for case in CASES:
        problem = problems.mnist(FIRST, SECOND, case.power)
        one_pass = record.pass_time(problem[0], EPSILON)
        for name, (method, limit) in methods(case).items():
            result = measure.measure(
                problem, EPSILON, TOLERANCE, method, limit, repeats=5, budget=2
            )
            rows.append(measure.row(case.name, name, result, one_pass))
            print(f"  {case.name}, {name}: {result['status']}", flush=True)
            if name == "auto":
                f, g = np.asarray(result["f"]), np.asarray(result["g"])
                plan = np.exp((f[:, None] + g - problem[0]) / EPSILON)
                images[case.name] = [interpolate(plan, t) for t in TIMES]
    print(f"\nL1 error of both marginals at most {TOLERANCE}, epsilon 1/1200, float64")
    print("passes: exponentials of the whole matrix; time without compilation\n")
    print(record.table(rows, measure.HEADERS))
    return images


def draw(images: dict[str, list[np.ndarray]], path: Path) -> None:
    """Draw the mass on its way, a row for each cost."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    axes = figure.subplots(len(images), len(TIMES), sharex=True, sharey=True)
    top = 1e3 * max(image.max() for row in images.values() for image in row)
    for line, (name, row) in zip(axes, images.items(), strict=True):
        for axis, time, image in zip(line, TIMES, row, strict=True):
            drawn = axis.imshow(1e3 * image, cmap="magma", vmin=0, vmax=top)
            axis.set_title(f"{name}, t = {time:g}")
            axis.set_xticks([0, 9, 18, 27])
            axis.set_yticks([0, 9, 18, 27])
        line[0].set_ylabel("row / pixels")
    for axis in axes[-1]:
        axis.set_xlabel("column / pixels")
    figure.colorbar(drawn, ax=axes, label="mass in a pixel / 0.001 of the total")
    figure.suptitle("Mass of one digit on its way to another, epsilon = 1/1200")
    figure.savefig(path, dpi=110)
