"""Problems: costs within two spaces, and what is known about the right answer."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

NEIGHBOURS = 40  # of the graph of SNARE-seq, as the authors of SCOT chose

Case = dict[str, Any]


def squares(x: np.ndarray) -> np.ndarray:
    """[n, n] squared distances of points [n, d]."""
    norms = np.sum(x**2, axis=1)
    return np.maximum(norms[:, None] + norms[None] - 2 * x @ x.T, 0)


def graph_distances(cost: np.ndarray, k: int) -> np.ndarray:
    """[n, n] steps in the graph of k nearest neighbours, itself included; largest 1."""
    n = len(cost)
    near = np.argsort(cost, axis=1, kind="stable")[:, :k]
    links = np.ones(n * k), (np.repeat(np.arange(n), k), near.ravel())
    steps = dijkstra(csr_matrix(links, shape=(n, n)), directed=False)
    steps[~np.isfinite(steps)] = steps[np.isfinite(steps)].max()
    return steps / steps.max()


def snare(folder: Path) -> Case:
    """SNARE-seq, 1,047 cells measured twice; distances in graphs by correlation."""
    out = {}
    for name, kind in (("x", "atac"), ("y", "rna")):
        table = np.load(folder / f"SNAREseq_{kind}_feat.npy").astype(float)
        table -= table.mean(axis=1, keepdims=True)
        table /= np.linalg.norm(table, axis=1, keepdims=True)
        cost = 1 - table @ table.T
        np.fill_diagonal(cost, -1)
        out[name] = graph_distances(cost, NEIGHBOURS)
        out[f"points_{name}"] = table
    return {"name": "SNARE-seq, 1047", "epsilon": 1e-3, **out}


def rolls(n: int) -> Case:
    """A spiral in the plane and a Swiss roll: one curve, once with a width."""
    r = np.random.default_rng(0)
    t, s = (np.sort(1.5 * np.pi * (1 + 2 * r.uniform(size=n))) for _ in range(2))
    spiral = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
    width = r.uniform(0, 5, size=n)
    roll = np.stack([s * np.cos(s), width, s * np.sin(s)], axis=1)
    x, y = (np.sqrt(squares(z)) for z in (spiral, roll))
    return {
        "name": f"spiral and Swiss roll, {n}",
        "epsilon": 5e-3,
        "x": x / x.max(),
        "y": y / y.max(),
    }


def blocks(n: int) -> Case:
    """Two graphs of a stochastic block model, with noisy features of the nodes."""
    r = np.random.default_rng(1)
    labels = np.sort(r.integers(0, 4, size=n))
    chance = np.where(labels[:, None] == labels[None], 0.3, 0.02)
    out = {}
    for name in ("x", "y"):
        upper = np.triu(r.uniform(size=(n, n)) < chance, 1)
        out[name] = (upper | upper.T).astype(float)
    one, other = (labels[:, None] + r.normal(scale=0.7, size=(n, 2)) for _ in range(2))
    linear = np.sum((one[:, None] - other[None]) ** 2, axis=-1)
    return {
        "name": f"block models, fused, {n}",
        "epsilon": 1e-2,
        "linear": linear / linear.max(),
        "alpha": 0.5,
        "labels": labels,
        **out,
    }


def grown(n: int) -> Case:
    """A cloud, and the same with 20 % more mass on one part and outliers elsewhere."""
    r = np.random.default_rng(2)
    x = np.concatenate([r.normal(size=(n, 2)), r.normal(size=(n, 2)) + [4, 1]])
    far = r.uniform(8, 10, size=(n // 10, 2))
    y = np.concatenate([x + r.normal(scale=0.05, size=x.shape), far])
    a = np.full(2 * n, 1 / (2 * n))
    b = np.concatenate([a[:n], 1.4 * a[n:], np.full(len(far), a[0])])
    cost_x, cost_y = np.sqrt(squares(x)), np.sqrt(squares(y))
    linear = np.sum((x[:, None] - y[None]) ** 2, axis=-1)
    scale = cost_x.max()
    return {
        "name": f"growth by 20 % and outliers, {2 * n}",
        "epsilon": 1e-2,
        "x": cost_x / scale,
        "y": cost_y / scale,
        "a": a,
        "b": b,
        "linear": linear / scale**2,
        "alpha": 0.5,
        "rho": 0.1,
    }
