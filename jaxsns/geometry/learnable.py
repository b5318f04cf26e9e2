"""Costs of two points whose parameters are data, whatever Python object holds them.

A function, an object or a pytree is traced once for one pair of points: what it does
becomes static, the arrays that it reads become leaves. Derivatives in them, new values
of them and lanes of them are then those of any other array. Two costs that do the same
are equal, so that a fresh lambda compiles nothing.
"""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns.geometry import costs

_LEAVES = jax.Array | np.ndarray | np.generic | float  # of a pytree; others are static
_tokens: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _core():
    """Return JAX's public types of programs: they take half the time of all of us."""
    from jax.extend import core

    return core


class _Same:
    """Equal to itself alone; keeps what it stands for, so that its id stays its own."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _state(value: Any) -> Hashable:
    """What a cost holds, as far as it can be changed without a new object."""
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, tuple | list):
        return tuple(map(_state, value))
    if isinstance(value, dict):
        return tuple((key, _state(x)) for key, x in value.items())
    if isinstance(value, str | bytes | int | float | complex | None):
        return type(value).__name__, value
    return id(value) if isinstance(value, Tracer) else _Same(value)


class _Opaque:
    """A cost that JAX knows nothing of: static, and equal while it holds the same."""

    def __init__(self, cost: Any):
        self.cost = cost
        self.state = _state(getattr(cost, "__dict__", None))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Opaque):
            return False
        return self.cost == other.cost and self.state == other.state

    def __hash__(self) -> int:
        return hash((self.cost, self.state))


def register(data: tuple[str, ...], static: tuple[str, ...]) -> Callable:
    """Decorator: a frozen dataclass as pytree whose `cost` is data if it is a pytree.

    data, static: the other fields, in order; of static ones the cost is the first.
    """

    def decorate(kind: type) -> type:
        def flatten(value):
            fields = [(jax.tree_util.GetAttrKey(n), getattr(value, n)) for n in data]
            cost = value.cost
            # Ours never change, and are exported by what they are.
            if not isinstance(cost, str) and not getattr(cost, "is_matrix", False):
                if jax.tree_util.all_leaves([cost]):
                    cost = _Opaque(cost)
                else:
                    fields.append((jax.tree_util.GetAttrKey("cost"), cost))
                    cost = None
            return fields, (cost, *(getattr(value, n) for n in static))

        def unflatten(fixed, children):
            children = list(children)
            cost = children.pop() if fixed[0] is None else fixed[0]
            cost = cost.cost if isinstance(cost, _Opaque) else cost
            # Without its checks: JAX puts anything in the place of leaves.
            value = object.__new__(kind)
            names = zip((*data, *static), (*children, *fixed[1:]), strict=True)
            for name, field in (("cost", cost), *names):
                object.__setattr__(value, name, field)
            return value

        jax.tree_util.register_pytree_with_keys(kind, flatten, unflatten)
        return kind

    return decorate


class Traced:
    """What a cost does with a pair of points: static, equal for equal programs.

    Attributes:
      width: numbers that its largest step makes.
    """

    def __init__(self, closed: Any, token: Hashable, source: tuple | None, dtype: Any):
        """Keep a program of (leaves, points).

        token: of the cost, which tells rules of derivatives apart that JAX hides.
        source: arguments of `_trace` that pickling goes back to, or None.
        """
        self._jaxpr = closed.jaxpr
        self._key = (len(closed.consts), str(dtype), _key(closed.jaxpr, token))
        self._hash = hash(self._key)
        self._source = source
        self._dtype = dtype
        self.width = _width(closed.jaxpr)

    def __call__(self, leaves: Any, *points: jax.Array) -> jax.Array:
        """[] number of points [d], or of what else the program was traced for."""
        consts, arrays = leaves
        dtype = jnp.result_type(*[p.dtype for p in points])
        points = tuple(p.astype(self._dtype) for p in points)
        core = _core()
        run = core.jaxpr_as_fun(core.ClosedJaxpr(self._jaxpr, consts))
        # A function may return a plain number, which has no dtype of its own.
        return jnp.asarray(run(*arrays, *points)[0]).astype(dtype)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same program."""
        return isinstance(other, Traced) and self._key == other._key

    def __hash__(self) -> int:
        """Hash of the program."""
        return self._hash

    def __repr__(self) -> str:
        """The cost's name, for messages."""
        cost = None if self._source is None else self._source[0]
        return f"a function ({cost!r})"

    def __reduce__(self) -> tuple:
        """Pickle the cost itself, which is traced again."""
        if self._source is None:
            raise TypeError("a cost that was made of traced values cannot be pickled")
        return _retraced, self._source


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("leaves",),
    meta_fields=("function",),
)
@dataclasses.dataclass(frozen=True)
class OfPlan:
    """Number of a plan [n, m] -> [], with what the function reads as data."""

    leaves: Any
    function: Traced

    def __call__(self, plan: jax.Array) -> jax.Array:
        """[] number of a plan [n, m]."""
        return self.function(self.leaves, plan)


def of_plan(name: str, function: Any, shape: tuple[int, int], dtype: Any) -> OfPlan:
    """Return a function of plans with its parameters as data.

    Raises TypeError or ValueError if it does not map a plan to a real number.
    """
    want = f"{name} must map a plan {list(shape)} to a number []"
    traced, leaves = _trace(want, function, (shape,), dtype)
    return OfPlan(leaves, traced)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("leaves",),
    meta_fields=("function", "flipped"),
)
@dataclasses.dataclass(frozen=True)
class Parametric:
    """Cost of two points [d], [d] -> [] with its parameters as data."""

    leaves: Any  # (arrays it closes over, arrays of the pytree that it is)
    function: Traced
    flipped: bool = False  # the two points change places

    @property
    def width(self) -> int:
        """Numbers that the largest step of a pair makes."""
        return self.function.width

    def __call__(self, u: jax.Array, v: jax.Array) -> jax.Array:
        """[] cost of two points [d]."""
        u, v = (v, u) if self.flipped else (u, v)
        return self.function(self.leaves, u, v)


def exchanged(cost: Any) -> Any:
    """Return a cost that `settled` gave, with its two points exchanged."""
    if isinstance(cost, Parametric):
        return dataclasses.replace(cost, flipped=not cost.flipped)
    if isinstance(cost, str | costs.PNorm):
        return cost
    return _other(cost)


@functools.cache
def _other(cost: Any) -> Any:
    def other(x, y):
        return cost(y, x).T

    other.is_matrix = True  # type: ignore[attr-defined]
    return other


def settled(cost: Any, dimension: int, dtype: Any) -> Any:
    """Return a name, a cost matrix function of ours, or the cost as `Parametric`.

    Raises TypeError or ValueError, with what was expected and what came, if it does not
    map two points [dimension] to a real number.
    """
    if isinstance(cost, str | Parametric) or getattr(cost, "is_matrix", False):
        return cost
    for name, function in costs.NAMED.items():
        if cost is function:
            return name
    want = f"cost must map two points [{dimension}], [{dimension}] to a number []"
    traced, leaves = _trace(want, cost, ((dimension,), (dimension,)), dtype)
    return Parametric(leaves, traced)


def _trace(want: str, cost: Any, shapes: tuple, dtype: Any) -> tuple[Traced, Any]:
    """The program of a cost of arrays of some shapes, and its parameters."""
    leaves, structure = jax.tree.flatten(cost)
    own = [isinstance(leaf, _LEAVES) and leaf is not cost for leaf in leaves]

    def run(arrays, *points):
        mine = iter(arrays)
        parts = [next(mine) if a else x for a, x in zip(own, leaves, strict=True)]
        owner = jax.tree.unflatten(structure, parts) if any(own) else cost
        return owner(*points)

    arrays = [jnp.asarray(x) for a, x in zip(own, leaves, strict=True) if a]
    points = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    try:
        closed, out = jax.make_jaxpr(run, return_shape=True)(arrays, *points)
        consts = [jnp.asarray(c) for c in closed.consts]
        traced = [x for x in (*consts, *arrays) if isinstance(x, Tracer)]
        for x in traced:
            jax.lax.expand_dims(x, (0,))  # of no use, but raises if x is of the past
    except jax.errors.UnexpectedTracerError as error:
        raise TypeError(
            f"{want}; got one that holds a traced value of a function that has "
            "returned: make it where it is used, of arguments"
        ) from error
    except (IndexError, TypeError, ValueError) as error:
        raise TypeError(
            f"{want}; of such arguments it raised {type(error).__name__}: {error}"
        ) from error
    _check_output(want, out)
    # What is static lives as long as compiled programs: it must not hold tracers.
    source = None if traced else (cost, want, shapes, dtype)
    token = _token(cost)
    if any(own):
        # What a pytree does beside its arrays is told by its structure, and by leaves
        # that are no arrays, such as the activation of a layer.
        rest = tuple(x for a, x in zip(own, leaves, strict=True) if not a)
        token = (structure, tuple(map(_known, rest)))
    return Traced(closed, token, source, dtype), (consts, arrays)


def _retraced(cost: Any, want: str, shapes: tuple, dtype: Any) -> Traced:
    return _trace(want, cost, shapes, dtype)[0]


def _check_output(want: str, out: Any) -> None:
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise TypeError(f"{want}; got {type(out).__name__}")
    if out.shape != ():
        raise ValueError(f"{want}; got shape {list(out.shape)}")
    real = jnp.issubdtype(out.dtype, jnp.number) or out.dtype == jnp.bool_
    if not real or jnp.issubdtype(out.dtype, jnp.complexfloating):
        raise TypeError(f"{want} that is real; got dtype {out.dtype}")


def _known(leaf: Any) -> object:
    """A leaf itself if it can be compared, else what stands for it."""
    try:
        hash(leaf)
    except TypeError:
        return _token(leaf)
    return leaf


def _token(owner: Any) -> object:
    """Object that stands for another as long as that lives, without keeping it."""
    try:
        return _tokens.setdefault(owner, object())
    except TypeError:  # neither hashable nor open to weak references
        return object()


def _inner(value: Any) -> Any:
    """Program inside a parameter of an operation, if it is one."""
    value = getattr(value, "jaxpr", value)
    return value if isinstance(value, _core().Jaxpr) else None


def _width(jaxpr: Any) -> int:
    """Most numbers that an operation of a program makes."""
    most = 1
    for equation in jaxpr.eqns:
        sizes = [v.aval.size for v in equation.outvars if hasattr(v.aval, "size")]
        inner = map(_inner, jax.tree.leaves(list(equation.params.values())))
        most = max(most, *sizes, *(_width(j) for j in inner if j is not None))
    return most


def _key(jaxpr: Any, token: object) -> Hashable:
    """What two programs have in common exactly if they do the same."""
    names: dict[Any, int] = {}

    def atom(value: Any) -> Hashable:
        if isinstance(value, _core().Literal):
            return _constant(value.val, token), str(value.aval)
        return names.setdefault(value, len(names)), str(value.aval)

    inputs = tuple(map(atom, (*jaxpr.constvars, *jaxpr.invars)))
    steps = tuple(
        (
            equation.primitive.name,
            tuple(map(atom, equation.invars)),
            tuple(map(atom, equation.outvars)),
            tuple((k, _constant(v, token)) for k, v in sorted(equation.params.items())),
        )
        for equation in jaxpr.eqns
    )
    return inputs, steps, tuple(map(atom, jaxpr.outvars))


def _constant(value: Any, token: object) -> Hashable:
    """What is static in a program, by value where that can be told."""
    inner = _inner(value)
    if inner is not None:
        held = tuple(_constant(c, token) for c in getattr(value, "consts", ()))
        return _key(inner, token), held
    if isinstance(value, tuple | list):
        return type(value).__name__, tuple(_constant(v, token) for v in value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        if isinstance(value, Tracer):
            return id(value)
        host = np.asarray(value)
        return host.shape, str(host.dtype), host.tobytes()
    if callable(value) and not isinstance(value, type):
        return token  # a rule of derivatives: the same for the same cost
    try:
        hash(value)
    except TypeError:
        return token
    return type(value).__name__, value
