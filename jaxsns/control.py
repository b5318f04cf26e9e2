"""Loops and branches of `jax.lax` that also work inside `shard_map`.

Inside `jax.shard_map` the type of a value says over which axes of the mesh it varies,
and JAX wants a carry and what a body makes of it, or the results of two branches, to
have one type. Constants vary over nothing, results of data do. The functions here
cast them to what the data vary over. Anywhere else they are those of `jax.lax`, and
add nothing.

What data vary over is found once, by the outermost loop or branch or by
`custom_vmap`, and holds for all that is inside. A value that would vary by itself
(`jax.lax.axis_index`) must come in from outside.
"""

import contextlib
import functools
import math
import types
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Function = Callable[..., Any]


class _Scope(NamedTuple):
    """Where a loop or branch is traced."""

    manual: tuple[str, ...]  # all manual axes of the mesh
    varying: tuple[str, ...]  # those over which all results vary


_SCOPE: ContextVar[_Scope | None] = ContextVar("jaxsns_scope", default=None)


def _manual() -> tuple[str, ...]:
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def _varying(tree: Any) -> frozenset[str]:
    """Manual axes over which any leaf varies."""
    leaves = jax.tree.leaves(tree)
    return frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in leaves))


def _vary(tree: Any, axes: Sequence[str]) -> Any:
    """Let each leaf vary over these axes too."""

    def leaf(x: Any) -> Any:
        missing = tuple(axis for axis in axes if axis not in _varying(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(leaf, tree) if axes else tree


@contextlib.contextmanager
def _entered(scope: _Scope) -> Iterator[None]:
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def _scope(calls: Sequence[tuple[Function, tuple]], operands: Any) -> _Scope | None:
    """Find where these functions are called; None outside `shard_map`.

    Functions close over values too: a first trace shows which. In it everything
    varies over everything, so that loops inside need no look of their own.
    """
    manual = _manual()
    if not manual:
        return None
    here = _SCOPE.get()
    if here is not None and here.manual == manual:
        return here
    if not _checked(manual):
        return None
    found = set(_varying(operands))
    with _entered(_Scope(manual, manual)):
        for function, arguments in calls:
            jaxpr = jax.make_jaxpr(_varied(function, manual))(*arguments)
            found |= _varying(jaxpr.consts)
    return _Scope(manual, tuple(axis for axis in manual if axis in found))


def _checked(manual: tuple[str, ...]) -> bool:
    """Tell whether types say what varies: not so with check_vma=False."""
    cast = lambda: jax.lax.pcast(jnp.zeros(()), manual, to="varying")
    kind = jax.eval_shape(cast).manual_axis_type
    return kind is not None and bool(kind.varying)


def _varied(function: Function, axes: Sequence[str]) -> Function:
    return lambda *arguments: function(*_vary(arguments, axes))


def _agreeing(function: Function, axes: Sequence[str]) -> Function:
    """Let the results of a function vary, and all that it closes over."""
    if not axes:
        return function
    whole = _closing_over(function, axes, {})
    return lambda *arguments: _vary(whole(*arguments), axes)


def _closing_over(value: Any, axes: Sequence[str], seen: dict[int, Any]) -> Any:
    """Copy a function, with the arrays that it closes over cast to vary.

    JAX 0.10 to 0.12 passes these arrays on as operands. `custom_linear_solve`, and
    `cond` where `vmap` gives it a predicate with lanes, cast their operands and then
    call what was traced without the cast, which raises.
    """
    if id(value) in seen:
        return seen[id(value)]
    again = lambda x: _closing_over(x, axes, seen)
    if isinstance(value, jax.Array):
        return _vary(value, axes)
    if isinstance(value, functools.partial):
        return functools.partial(
            again(value.func), *map(again, value.args), **again(value.keywords)
        )
    if isinstance(value, types.FunctionType):
        if value.__closure__ is None:
            return value
        cells = tuple(types.CellType() for _ in value.__closure__)
        copy = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, value.__defaults__, cells
        )
        copy.__kwdefaults__ = value.__kwdefaults__
        seen[id(value)] = copy
        for cell, old in zip(cells, value.__closure__, strict=True):
            cell.cell_contents = again(old.cell_contents)
        return copy
    leaves, structure = jax.tree.flatten(value)
    if jax.tree_util.treedef_is_leaf(structure):
        return value
    return jax.tree.unflatten(structure, map(again, leaves))


def while_loop(cond_fun: Function, body_fun: Function, init_val: Any) -> Any:
    """As `jax.lax.while_loop`."""
    scope = _scope([(cond_fun, (init_val,)), (body_fun, (init_val,))], init_val)
    if scope is None:
        return jax.lax.while_loop(cond_fun, body_fun, init_val)
    axes = scope.varying
    with _entered(scope):
        body = _agreeing(body_fun, axes)
        return jax.lax.while_loop(cond_fun, body, _vary(init_val, axes))


def fori_loop(lower: Any, upper: Any, body_fun: Function, init_val: Any) -> Any:
    """As `jax.lax.fori_loop`, with bounds that are equal on all devices."""
    step = jnp.asarray(lower)
    scope = _scope([(body_fun, (step, init_val))], init_val)
    if scope is None:
        return jax.lax.fori_loop(lower, upper, body_fun, init_val)
    axes = scope.varying
    with _entered(scope):
        body = _agreeing(body_fun, axes)
        return jax.lax.fori_loop(lower, upper, body, _vary(init_val, axes))


def scan(f: Function, init: Any, xs: Any = None, length: int | None = None) -> Any:
    """As `jax.lax.scan` with these arguments."""
    first = jax.tree.map(lambda x: jax.typeof(x).update(shape=x.shape[1:]), xs)
    scope = _scope([(f, (init, first))], (init, xs))
    if scope is None:
        return jax.lax.scan(f, init, xs, length=length)
    axes = scope.varying
    with _entered(scope):
        init = _vary(init, axes)
        return jax.lax.scan(_agreeing(f, axes), init, xs, length=length)


def cond(pred: Any, true_fun: Function, false_fun: Function, *operands: Any) -> Any:
    """As `jax.lax.cond`."""
    branches = true_fun, false_fun
    scope = _scope([(f, operands) for f in branches], (pred, operands))
    if scope is None:
        return jax.lax.cond(pred, true_fun, false_fun, *operands)
    with _entered(scope):
        branches = (_agreeing(f, scope.varying) for f in branches)
        return jax.lax.cond(pred, *branches, *operands)


def switch(index: Any, branches: Sequence[Function], *operands: Any) -> Any:
    """As `jax.lax.switch`."""
    scope = _scope([(f, operands) for f in branches], (index, operands))
    if scope is None:
        return jax.lax.switch(index, branches, *operands)
    with _entered(scope):
        branches = [_agreeing(f, scope.varying) for f in branches]
        return jax.lax.switch(index, branches, *operands)


def platform_dependent(*operands: Any, default: Function, **platforms: Function) -> Any:
    """As `jax.lax.platform_dependent`."""
    calls = [(f, operands) for f in (default, *platforms.values())]
    scope = _scope(calls, operands)
    if scope is None:
        return jax.lax.platform_dependent(*operands, default=default, **platforms)
    with _entered(scope):
        axes = scope.varying
        named = {name: _agreeing(f, axes) for name, f in platforms.items()}
        other = _agreeing(default, axes)
        return jax.lax.platform_dependent(*operands, default=other, **named)


def custom_linear_solve(
    matvec: Function,
    b: Any,
    solve: Function,
    transpose_solve: Function | None = None,
    symmetric: bool = False,
) -> Any:
    """As `jax.lax.custom_linear_solve`."""
    # A solution depends on nothing but b and what the product depends on.
    scope = _scope([(matvec, (b,)), (lambda b: solve(matvec, b), (b,))], b)
    if scope is None:
        return jax.lax.custom_linear_solve(matvec, b, solve, transpose_solve, symmetric)
    axes = scope.varying
    with _entered(scope):
        back = None if transpose_solve is None else _agreeing(transpose_solve, axes)
        return jax.lax.custom_linear_solve(
            _agreeing(matvec, axes),
            _vary(b, axes),
            _agreeing(solve, axes),
            back,
            symmetric,
        )


def custom_vmap(function: Function) -> Any:
    """As `jax.custom_batching.custom_vmap`, of a function that closes over no data.

    Lanes that are divided along Explicit axes of a mesh stay where they are: the rule
    runs on each device with its own. What is divided otherwise is gathered.
    """
    whole = jax.custom_batching.custom_vmap(_of_arguments(function))
    define = whole.def_vmap

    def def_vmap(vmap_rule: Function) -> Function:
        def agreeing(size: int, batched: Any, *arguments: Any) -> Any:
            batched = tuple(batched)
            mesh, axes = _lanes_divided(batched, arguments)
            if not axes:
                return _by_rule(vmap_rule, size, batched, arguments)
            mine, common = PartitionSpec(axes), PartitionSpec()
            specs = jax.tree.map(lambda flag: mine if flag else common, batched)
            local = size // math.prod(mesh.shape[axis] for axis in axes)

            def part(*arguments: Any) -> Any:
                out, flags = _by_rule(vmap_rule, local, batched, arguments)
                lanes = lambda x, flag: (
                    x if flag else jnp.broadcast_to(x, (local, *x.shape))
                )
                return jax.tree.map(lanes, out, flags)

            arguments = jax.tree.map(
                lambda x, spec: _placed(x, mesh, spec), arguments, specs
            )
            names = set(axes)
            out = jax.shard_map(
                part, mesh=mesh, in_specs=specs, out_specs=mine, axis_names=names
            )(*arguments)
            return out, jax.tree.map(lambda _: True, out)

        define(agreeing)
        return vmap_rule

    whole.def_vmap = def_vmap
    return whole


def _by_rule(rule: Function, size: int, batched: Any, arguments: Any) -> Any:
    flags = None

    def results(*arguments: Any) -> Any:
        nonlocal flags
        out, flags = rule(size, list(batched), *arguments)
        return out

    return _of_arguments(results)(*arguments), flags


def _of_arguments(function: Function) -> Function:
    """Let results vary over what any argument varies over, with lanes or without.

    What is divided along Explicit axes is gathered.
    """

    def call(*arguments: Any) -> Any:
        arguments = jax.tree.map(_gathered, arguments)
        manual = _manual()
        if not manual:
            return function(*arguments)
        axes = _common(arguments)
        with _entered(_Scope(manual, axes)):
            return _vary(function(*_vary(arguments, axes)), axes)

    return call


def alike(*trees: Any) -> Any:
    """Let all leaves of all trees vary over what any leaf varies over."""
    return _vary(trees, _common(trees))


def _common(tree: Any) -> tuple[str, ...]:
    """Manual axes over which any leaf varies, in the order of the mesh."""
    found = _varying(tree)
    return tuple(axis for axis in _manual() if axis in found)


def _explicit(x: Any) -> tuple[tuple[str, ...], ...]:
    """Explicit axes of the mesh along which each axis of an array is divided."""
    sharding = jax.typeof(x).sharding
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    names = lambda entry: entry if isinstance(entry, tuple) else (entry,)
    return tuple(
        tuple(name for name in names(entry) if kinds.get(name) == AxisType.Explicit)
        for entry in sharding.spec
    )


def is_divided(x: Any) -> bool:
    """Whether an array is divided along any Explicit axis of a mesh."""
    return any(_explicit(x))


def vmapped(function: Function, depth: int, *arrays: jax.Array) -> Any:
    """Apply a function under `vmap` of the first `depth` axes of all arrays.

    Where one of these axes of any array is divided along Explicit axes of a mesh, each
    device takes its own part of the batch, and the results stay divided.
    """
    for _ in range(depth):
        function = jax.vmap(function)
    divided = next((x for x in arrays if any(_explicit(x)[:depth])), None)
    if divided is None:
        return function(*arrays)
    mesh, axes = jax.typeof(divided).sharding.mesh, _explicit(divided)[:depth]
    parts = PartitionSpec(*(names or None for names in axes))
    arrays = tuple(_placed(x, mesh, parts) for x in arrays)
    every = {name for names in axes for name in names}
    return jax.shard_map(
        function, mesh=mesh, in_specs=parts, out_specs=parts, axis_names=every
    )(*arrays)


def refuse_divided_lanes(what: str, tree: Any) -> None:
    """Raise a TypeError under `vmap` of lanes that are divided along Explicit axes.

    JAX would raise all the same, from its inside. what: what cannot be batched so.
    """

    @jax.custom_batching.custom_vmap
    def looked_at(*leaves: Any) -> Any:
        return leaves

    @looked_at.def_vmap
    def _(size: int, batched: Any, *leaves: Any) -> Any:
        if _lanes_divided(batched, leaves)[1]:
            raise TypeError(
                f"{what} cannot be batched by jax.vmap along Explicit axes of a mesh; "
                "use a mesh with Auto axes, or jax.shard_map"
            )
        return looked_at(*leaves), tuple(batched)

    looked_at(*jax.lax.stop_gradient(jax.tree.leaves(tree)))


def _lanes_divided(batched: Any, arguments: Any) -> tuple[Any, tuple[str, ...]]:
    """Mesh and Explicit axes along which lanes are divided, if they are."""
    pairs = zip(jax.tree.leaves(arguments), jax.tree.leaves(batched), strict=True)
    for x, flag in pairs:
        if flag and (axes := _explicit(x)[0]):
            return jax.typeof(x).sharding.mesh, axes
    return None, ()


def _gathered(x: Any) -> Any:
    if not any(_explicit(x)):
        return x
    return _placed(x, jax.typeof(x).sharding.mesh, PartitionSpec())


def _placed(x: Any, mesh: Any, spec: PartitionSpec) -> Any:
    return jax.sharding.reshard(x, NamedSharding(mesh, spec))
