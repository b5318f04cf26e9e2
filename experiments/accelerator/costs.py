"""What an accelerator pays for: a table of the loops of each path.

    python -m experiments.accelerator.costs

Lowers solves for cuda, in float32, and reads the program before XLA optimises it; no
accelerator is needed. For each loop, of what is inside its body but not inside an inner
loop: operations; those that are a kernel of their own, at least (products, reductions,
gathers, sorts, calls of libraries); the bytes that these read and write; predicates
that the host reads, of the loop itself and of branches. A loop whose number of steps
is known when compiled has no predicate of its own.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxsns
from experiments import record

KERNELS = {
    "convolution",
    "custom_call",
    "dot_general",
    "dynamic_update_slice",
    "fft",
    "gather",
    "reduce",
    "reduce_window",
    "scatter",
    "sort",
    "top_k",
    "triangular_solve",
    "cholesky",
}
NOTHING = {"constant", "return", "call", "while", "case", "if", "optimization_barrier"}
FRAME = re.compile(r'"([\w.<>]+)"\("[^"]*jaxsns/([\w/]+)\.py"')
TENSOR = re.compile(r"tensor<((?:\d+x)*)([a-z]+)(\d+)>")
SKIPPED = re.compile(r"while|body|cond|branch|jit|vmap|closed_call")
GENERIC = ("control", "solvers/loop", "linear/mapping", "solvers/batched/vmap")


class Loop(NamedTuple):
    """One loop, or the whole program: what is inside, but not in inner loops."""

    name: str
    depth: int
    operations: int
    kernels: int
    mib: float
    predicates: int


def _size(kind: Any) -> int:
    match = TENSOR.search(str(kind))
    if match is None:
        return 0
    entries = 1
    for size in match[1].split("x")[:-1]:
        entries *= int(size)
    return entries * max(int(match[3]) // 8, 1)


def _name(operation: Any) -> str:
    """Where in the package a loop is written, or the scope if that is lost."""
    text = str(operation.location)
    frames = [(f, file) for f, file in FRAME.findall(text) if file not in GENERIC]
    scope = re.match(r'loc\("([^"]*)"', text)
    named = [x for x in (scope[1] if scope else "").split("/") if x]
    named = [x for x in named if not SKIPPED.match(x)]
    where = f"{frames[0][1]}: {frames[0][0].split('.')[0]}" if frames else ""
    return " / ".join(filter(None, [*named[-1:], where])) or "?"


def _inside(block: Any, functions: dict[str, Any]) -> Iterator[Any]:
    """Operations of a block, of what it calls and branches, but not of inner loops."""
    for operation in block:
        operation = operation.operation
        yield operation
        kind = operation.name.split(".")[-1]
        if kind == "call":
            callee = str(operation.attributes["callee"]).lstrip("@").strip('"')
            yield from _inside(functions[callee].regions[0].blocks[0], functions)
        elif kind in ("case", "if"):
            for region in _branches(operation):
                yield from _inside(region.blocks[0], functions)


def _branches(operation: Any) -> list[Any]:
    """Branches that a program for one platform can take."""
    regions = list(operation.regions)
    index = operation.operands[0].owner
    if getattr(index, "name", "") != "stablehlo.constant":
        return regions
    # What `platform_dependent` leaves: the platform is known.
    number = int(re.search(r"dense<(-?\d+)>", str(index.attributes["value"]))[1])
    return [regions[min(max(number, 0), len(regions) - 1)]]


def _read(operation: Any) -> bool:
    """Whether the host reads a predicate for a branch."""
    kind = operation.name.split(".")[-1]
    return kind in ("case", "if") and len(_branches(operation)) > 1


def _counted(loop: Any) -> bool:
    """Whether the number of steps is known when compiled: a counter below a number."""
    operations = [x.operation for x in loop.regions[0].blocks[0]]
    kinds = {x.name.split(".")[-1] for x in operations}
    compared = [x for x in operations if x.name.endswith("compare")]
    below = all("LT" in str(x.attributes["comparison_direction"]) for x in compared)
    return below and kinds <= {"constant", "compare", "return"}


def _loops(name: str, blocks: list, functions: dict, depth: int, own: int):
    inside = [x for block in blocks for x in _inside(block, functions)]
    kinds = [x.name.split(".")[-1] for x in inside]
    heavy = [x for x, kind in zip(inside, kinds, strict=True) if kind in KERNELS]
    moved = sum(_size(value.type) for x in heavy for value in (*x.operands, *x.results))
    yield Loop(
        name,
        depth,
        sum(kind not in NOTHING for kind in kinds),
        len(heavy),
        moved / 2**20,
        own + sum(_read(x) for x in inside),
    )
    for operation, kind in zip(inside, kinds, strict=True):
        if kind == "while":
            own = 0 if _counted(operation) else 1
            # Its test is a part of every step, and so are reductions in it.
            parts = [region.blocks[0] for region in operation.regions]
            yield from _loops(_name(operation), parts, functions, depth + 1, own)


def loops(function: Callable, *shapes: jax.ShapeDtypeStruct) -> list[Loop]:
    """The whole program, and its loops in their order, inner ones after outer ones."""
    traced = jax.jit(function).trace(*shapes)
    module = traced.lower(lowering_platforms=("cuda",)).compiler_ir("stablehlo")
    functions = {
        str(x.attributes["sym_name"]).strip('"'): x.operation for x in module.body
    }
    block = functions["main"].regions[0].blocks[0]
    return list(_loops("the program", [block], functions, 0, 0))


def paths() -> dict[str, tuple[Callable, tuple]]:
    """A solve for each path through the package."""
    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    value = lambda cost: jaxsns.solve(cost, epsilon=0.01).f
    sinkhorn = lambda cost: jaxsns.solve(cost, epsilon=0.01, method="sinkhorn").f

    def streamed(method: str) -> Callable:
        cloud = lambda x, y: jaxsns.PointCloud(x, y, streamed=True)
        return lambda x, y: jaxsns.solve(cloud(x, y), epsilon=0.1, method=method).f

    points = of(20_000, 3), of(20_000, 3)
    return {
        "dense, 1000 x 1000": (value, (of(1000, 1000),)),
        "dense, Sinkhorn": (sinkhorn, (of(1000, 1000),)),
        "batched, 64 x (128 x 128)": (jax.vmap(value), (of(64, 128, 128),)),
        "tiny, 1e6 x (4 x 4)": (jax.vmap(value), (of(10**6, 4, 4),)),
        "streamed, 20,000 points": (streamed("auto"), points),
        "streamed, Sinkhorn": (streamed("sinkhorn"), points),
    }


def main() -> None:
    """Print one table a path."""
    headers = ["loop", "operations", "kernels", "MiB", "predicates"]
    for name, (function, shapes) in paths().items():
        rows = [
            [f"{'- ' * x.depth}{x.name}", x.operations, x.kernels, x.mib, x.predicates]
            for x in loops(function, *shapes)
        ]
        print(f"\n### {name}\n\n{record.table(rows, headers)}", flush=True)


if __name__ == "__main__":
    main()
