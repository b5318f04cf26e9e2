"""A few words about a result: sizes, dtype and how it went, but no array."""

import functools
import html
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsns.status import Status

COLUMNS = 79  # of a terminal [D37]


def ends(status: ArrayLike) -> str:
    """How the problems of a batch ended, counted: "CONVERGED: 2, STALLED: 1"."""
    names, number = np.unique(np.asarray(status), return_counts=True)
    pairs = zip(names, number, strict=True)
    return ", ".join(f"{Status(int(s)).name}: {k}" for s, k in pairs)


def number(count: Any, one: str, more: str | None = None) -> str:
    """A count with its noun: "1 sweep", "2 sweeps"."""
    return f"{int(count)} {one if int(count) == 1 else more or one + 's'}"


def screen(*lines: str, indent: int = 2) -> str:
    """Join lines, wrapped at the columns of a terminal; all but the first indented."""
    after, (first, *others) = " " * indent, lines
    wrap = functools.partial(
        textwrap.fill, width=COLUMNS, subsequent_indent=after, break_on_hyphens=False
    )
    return "\n".join([wrap(first), *(wrap(x, initial_indent=after) for x in others)])


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """HTML table for notebooks; the first cell of a row is its heading."""
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(x)}</td>" for x in rest)
        body += f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>'
    return f"<table><caption>{html.escape(title)}</caption>{body}</table>"


def one_line(
    name: str, sizes: str, status: jax.Array, steps: jax.Array, **residual: jax.Array
) -> str:
    """Text of a result of an iteration: one line, if a terminal is wide enough.

    Args:
      name: of the class.
      sizes: the shape of one result in words.
      status: [...] int32, with leading dimensions for a batch.
      steps: [...] int32.
      residual: [...] what was compared with the tolerance, by its name.
    """
    ((what, size),) = residual.items()
    head = f"{name}({sizes}, {size.dtype}"
    if isinstance(status, Tracer):
        return head + ", traced)"
    if size.ndim > 0:
        found = ends(status)
        worst, most = float(jnp.max(size)), int(jnp.max(steps))
        return screen(
            f"{head}, batch={size.shape}, {found}, worst {what}={worst:.1e}, "
            f"at most {most} steps)"
        )
    return screen(
        f"{head}, {Status(int(status)).name}, {what}={float(size):.1e}, "
        f"{int(steps)} steps)"
    )
