"""How good a clustering is, whatever the names of the clusters."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def counts(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """[k, k] how often class i (row) is in cluster j (column)."""
    k = int(max(truth.max(), found.max())) + 1
    table = np.zeros((k, k), int)
    np.add.at(table, (truth, found), 1)
    return table


def hits(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """[k] images of each class in its cluster, by the assignment with most hits."""
    table = counts(truth, found)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return table[rows, columns]


def accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """Share of images in the cluster of their class (Hungarian assignment)."""
    return float(hits(truth, found).sum() / truth.size)


def class_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean over classes of the share in the right cluster: rare ones count as much."""
    right = hits(truth, found)
    sizes = np.bincount(truth, minlength=right.size)
    return float(np.mean(right[sizes > 0] / sizes[sizes > 0]))


def nmi(truth: np.ndarray, found: np.ndarray) -> float:
    """Mutual information over the mean of the two entropies; 0 if both are 0."""
    joint = counts(truth, found) / truth.size
    rows, columns = joint.sum(1), joint.sum(0)

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-np.sum(p * np.log(p)))

    mean = (entropy(rows) + entropy(columns)) / 2
    shared = entropy(rows) + entropy(columns) - entropy(joint.ravel())
    return shared / mean if mean > 0 else 0.0


def all_scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Accuracy, its mean over classes, and NMI."""
    return {
        "accuracy": accuracy(truth, found),
        "class accuracy": class_accuracy(truth, found),
        "NMI": nmi(truth, found),
    }
