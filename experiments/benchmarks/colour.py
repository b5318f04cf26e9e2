"""Colour transfer between two photographs: pixels as points in RGB space.

Source and target are photographs that come with scikit-image (coffee: Rachel
Michetti, CC0; rocket: SpaceX, public domain). A sample of pixels of each is
transported; the target's potential then gives every pixel of the whole source its
new colour, sum_j softmax_j((g_j - |x - y_j|^2) / epsilon) y_j, the entropic map.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import record
from experiments.benchmarks.batch_ours import in_process
from experiments.benchmarks.batch_peers import Setting, contender, gave_up
from experiments.benchmarks.batch_problems import Batch
from experiments.benchmarks.batch_rounds import Contender, measure
from experiments.benchmarks.options import wanted
from experiments.benchmarks.peer_process import PeerError, PeerProcess

PIXELS = 2000  # of each picture
SHARES, TOLERANCE = (1e-2, 1e-3), 1e-6
PICTURE = Path(__file__).parents[2] / "docs" / "benchmarks" / "colour.png"
SETTINGS: tuple[Setting, ...] = (
    {},
    {"lse": False},
    {"momentum": [0, 1.5]},
    {"momentum": [0, 1.8]},
    {"momentum": [100, 1.0]},
    {"lse": False, "momentum": [0, 1.5]},
    {"lse": False, "momentum": [0, 1.8]},
    {"lse": False, "momentum": [100, 1.0]},
    {"anderson": 5},
)
LIMIT = 60.0  # seconds a solve of a peer
POT_MOST = 20_000  # iterations


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Source and target, [height, width, 3] in [0, 1]."""
    from skimage import data  # not needed by anything else here

    return np.asarray(data.coffee()) / 255.0, np.asarray(data.rocket()) / 255.0


def sample(picture: np.ndarray, seed: int) -> np.ndarray:
    """[PIXELS, 3] colours of random pixels."""
    pixels = picture.reshape(-1, 3)
    chosen = np.random.default_rng(seed).choice(len(pixels), PIXELS, replace=False)
    return pixels[chosen]


def problem(seed: int, share: float) -> tuple[Batch, np.ndarray]:
    """One lane: squared RGB distances scaled to at most 1; and the target's sample."""
    source, target = photographs()
    x, y = sample(source, seed), sample(target, seed + 1)
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    mass = np.full((1, PIXELS), 1 / PIXELS)
    epsilon = np.array([share * cost.max()])
    return Batch(cost[None], mass, mass, epsilon, np.ones((1, 1))), y


@jax.jit
def _recoloured(x: jax.Array, y: jax.Array, g: jax.Array, epsilon: jax.Array):
    """Entropic map of colours x [k, 3]."""
    square = jnp.sum((x[:, None] - y[None]) ** 2, axis=-1)
    return jax.nn.softmax((g - square) / epsilon, axis=1) @ y


def recolour(picture: np.ndarray, y: np.ndarray, g: np.ndarray, epsilon: float):
    """Give every pixel its new colour, row by row of the picture."""
    rows = [
        _recoloured(jnp.asarray(row), y, g, jnp.asarray(epsilon)) for row in picture
    ]
    return np.stack([np.asarray(x) for x in rows])


def save(transferred: list[tuple[str, np.ndarray]]) -> None:
    """Write source, target and results beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    source, target = photographs()
    pictures = [("source", source), ("target", target), *transferred]
    figure, axes = pyplot.subplots(1, len(pictures), figsize=(4 * len(pictures), 3))
    for axis, (title, picture) in zip(axes, pictures, strict=True):
        axis.imshow(np.clip(picture, 0, 1))
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=70)
    pyplot.close(figure)


def _ours(batch: Batch) -> Contender:
    cost, epsilon = jnp.asarray(batch.cost[0]), jnp.asarray(batch.epsilon[0])
    solve = jax.jit(
        lambda c, e: jaxsns.solve(c, epsilon=e, tolerance=TOLERANCE)
    )  # uniform masses

    def read(s: jaxsns.Solution) -> dict[str, np.ndarray]:
        return {"f": np.asarray(s.f)[None], "g": np.asarray(s.g)[None]}

    return in_process("jaxsns", lambda: solve(cost, epsilon), read)


def _pot(peer: PeerProcess, batch: Batch) -> Contender:
    """`ot.bregman.sinkhorn_log`; its L2 threshold is lowered until it does."""
    arrays = {"cost": batch.cost[0], "a": batch.a[0], "b": batch.b[0]}
    last: dict[str, np.ndarray] = {}
    options: dict[str, Any] = {"epsilon": float(batch.epsilon[0])}
    options["max_iterations"] = POT_MOST

    def once() -> float:
        found, facts = peer.call("pot", arrays, options, limit=LIMIT)
        last.update({k: v[None] for k, v in found.items()})
        return facts["seconds"]

    for share in (3.0, 1.0, 0.3, 0.1):
        options["threshold"] = share * TOLERANCE / np.sqrt(PIXELS)
        try:
            once()
        except PeerError as failure:
            print(f"  POT: {str(failure)[:80]}")
            return gave_up("POT sinkhorn_log", batch, LIMIT)
        if _error(batch, last) <= TOLERANCE:
            break
    return Contender("POT sinkhorn_log", once, lambda: last, {})


def _error(batch: Batch, found: dict[str, np.ndarray]) -> float:
    return record.true_error(
        batch.cost[0], batch.a[0], batch.b[0], found["f"][0], found["g"][0],
        batch.epsilon[0],
    )  # fmt: skip


def run(
    options: argparse.Namespace,
    ott: PeerProcess | None = None,
    pot: PeerProcess | None = None,
) -> list[dict[str, Any]]:
    """Records of all contenders at both epsilons; writes the picture."""
    jax.config.update("jax_enable_x64", True)
    records, transferred = [], []
    for share in SHARES:
        name = f"7 colour transfer n={PIXELS}, eps {share:g} of the largest cost"
        if not wanted(options, name):
            continue
        if importlib.util.find_spec("skimage") is None:
            print(f"{name}: not run, for want of scikit-image")
            continue
        print(name, flush=True)
        batch, y = problem(options.seeds[0], share)
        ours = _ours(batch)
        made = [ours]
        peers = (
            ott and contender(ott, batch, TOLERANCE, SETTINGS, limit=2 * LIMIT),
            pot and _pot(pot, batch),
        )
        made += [x for x in peers if x]
        timed = measure(made, options.rounds)
        for one, times in zip(made, timed, strict=True):
            error = _error(batch, one.results())
            records.append(
                {
                    "kind": "time", "case": name, "seed": options.seeds[0],
                    "dtype": "float64", "tolerance": TOLERANCE, **times,
                    "ratio": times["seconds"] / timed[0]["seconds"],
                    "error": error, "reached": error <= TOLERANCE,
                }
            )  # fmt: skip
        source, _ = photographs()
        g = ours.results()["g"][0]
        title = f"transferred, eps {share:g}"
        transferred.append((title, recolour(source, y, g, float(batch.epsilon[0]))))
    if transferred:
        save(transferred)
    return records
