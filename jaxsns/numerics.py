"""Numbers that depend on the dtype, and products at full precision."""

import jax
import jax.numpy as jnp


def machine_epsilon(dtype: jnp.dtype) -> float:
    """Distance from 1 to the next number of `dtype`."""
    return float(jnp.finfo(dtype).eps)


def smallest_normal(dtype: jnp.dtype) -> float:
    """Below it numbers have fewer digits, or are 0."""
    return float(jnp.finfo(dtype).tiny)


def default_tolerance(dtype: jnp.dtype) -> float:
    """Relative L1 marginal error at which a solve in `dtype` stops: 1e-10 or 2e-5.

    At epsilon = 1/1200 of the largest cost float32 stalls between 1e-6 and
    1.3e-5 [D13].
    """
    return 1e-10 if jnp.finfo(dtype).bits >= 64 else 2e-5


def inner_tolerance(tolerance: jax.Array) -> jax.Array:
    """[...] error at which an iteration stops on its kernel, below the tolerance.

    What is judged are potentials, after rounding. Near the limit of the dtype that,
    and derivatives, which inherit the error times a condition number, are worth one
    step more; far above it a tenth of the tolerance is margin enough. Never less
    than rounding can show [D13].
    """
    wide = jnp.finfo(tolerance.dtype).bits >= 64
    least, reference = (0.5, 2e-10) if wide else (0.1, 2e-4)
    share = jnp.clip(tolerance / reference, least, 0.9)
    floor = jnp.minimum(tolerance, 4 * machine_epsilon(tolerance.dtype))
    return jnp.maximum(share * tolerance, floor)


def default_shift(dtype: jnp.dtype) -> float:
    """Shift of the normalised Schur matrix before it is factorised.

    Relative, since that matrix has a unit diagonal. 1e-15 to 1e-13 in float64
    and 1e-7 to 3e-7 in float32 leave the derivative exact after refinement;
    none at all makes the factorisation fail when the plan splits into blocks [D15].
    """
    return 1e-14 if jnp.finfo(dtype).bits >= 64 else 3e-7


def smallest_kept(dtype: jnp.dtype) -> float:
    """Kernel entries below this become 0: subnormals slow BLAS 6-9 times [D06]."""
    return 1e-150 if jnp.finfo(dtype).bits >= 64 else 1e-30


def largest_scaling(dtype: jnp.dtype) -> float:
    """Largest |log scaling| before a kernel is rebuilt from new potentials.

    An entry flushed by `smallest_kept` (log -345 or -69) is below e^-145 or e^-9 after
    two scalings of this size. Both at once are rare, `lost_mass` tells a verdict that
    is read off a kernel, and the next kernel has the entry again [D06].
    """
    return 100.0 if jnp.finfo(dtype).bits >= 64 else 30.0


def longest_step(x: jax.Array, dx: jax.Array, axis: int | None = None) -> jax.Array:
    """Share of a step dx up to which |x + share dx| stays near `largest_scaling`, <= 1.

    A longer one would be judged by a kernel in which entries that count are missing.
    Over `axis`, or all; x itself is within the limit.
    """
    limit = 1.01 * largest_scaling(x.dtype)  # and so beyond it a little, if at all
    size = jnp.abs(dx)
    room = (limit - jnp.sign(dx) * x) / jnp.where(size > 0, size, 1)
    room = jnp.where(size > 0, room, 1)
    return jnp.minimum(jnp.maximum(jnp.min(room, axis=axis), 0), 1)


def finite_minus_inf(dtype: jnp.dtype) -> float:
    """Potential that stands for -inf inside the solvers: finite, so 0 * it is 0."""
    return -1e150 if jnp.finfo(dtype).bits >= 64 else -1e18


def forbidden_cost(dtype: jnp.dtype) -> float:
    """Cost that stands for +inf: finite, so that 0 mass times it is 0."""
    return -finite_minus_inf(dtype)


def is_forbidden(cost: jax.Array) -> jax.Array:
    """Where a cost stands for +inf, also after it was scaled by up to 1e5."""
    return cost >= 1e-5 * forbidden_cost(cost.dtype)


def permitted_costs(cost: jax.Array) -> jax.Array:
    """Costs with the number that stands for +inf, and NaN where they are too large.

    The number is finite, which keeps 0 * inf out of everything. Other costs that large
    would pass for forbidden pairs, or be dearer than those.
    """
    far = forbidden_cost(cost.dtype)
    stands = (cost == jnp.inf) | (cost == far)
    fine = stands | (jnp.abs(cost) < 1e-5 * far)
    # No NaN on the way where nothing is wrong: jax_debug_nans looks at that as well.
    return jnp.where(fine, jnp.where(stands, far, cost), jnp.nan)


def root(value: jax.Array) -> jax.Array:
    """Square root; 0 of what rounding made negative, and with derivative 0 there."""
    safe = jnp.where(value <= 0, 1, value)
    return jnp.where(value <= 0, 0, jnp.sqrt(safe))


def unit_of(values: jax.Array) -> jax.Array:
    """[] unit in which squares of values neither under- nor overflow: no derivative.

    The largest absolute value; 1 where all are zero.
    """
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(values)))
    return jnp.where(largest > 0, largest, 1)


def derivative_only(x: jax.Array) -> jax.Array:
    """0 with the derivative of x."""
    return x - jax.lax.stop_gradient(x)


def dual_slack(f: jax.Array, g: jax.Array, cost: jax.Array) -> jax.Array:
    """Sums f + g - cost, broadcast, no less exact than these are.

    Where costs have an offset f + g alone is rounded by more than epsilon times what
    is looked for: what f - cost loses is found (the sum of two numbers and its error,
    Knuth, TAOCP 2, 4.2.2, theorem B) and added again [D33].
    """
    near = f - cost
    back = near - f
    lost = jax.lax.stop_gradient((f - (near - back)) - (cost + back))
    return (near + g) + lost


def safe_log(x: jax.Array) -> jax.Array:
    """Logarithm with log(0) = -inf and a zero, not NaN, gradient there."""
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1)), -jnp.inf)


def masked(log: jax.Array, real: jax.Array) -> jax.Array:
    """Logarithms, -inf where an entry is not `real`.

    Two finite stand-ins must not be compared once they were divided: compiled, one
    may be divided and the other multiplied by an inverse, and what is left of 1e18 by
    rounding overflows in the exponential. NaN stays: it says that there is no answer.
    """
    return jnp.where(real | jnp.isnan(log), log, -jnp.inf)


def scaled_log_sum(x: jax.Array, epsilon: jax.Array, axis: int) -> jax.Array:
    """Smooth maximum epsilon log sum exp(x / epsilon) along an axis.

    The largest one is taken away before the division, so that a line of nothing but
    stand-ins (see `masked`) gives a finite number and derivative.
    """
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    sums = jnp.sum(jnp.exp((x - top) / epsilon), axis=axis)
    return jnp.squeeze(top, axis) + epsilon * jnp.log(sums)


def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """Product at the precision of the dtype: never TF32 or bfloat16 passes."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def vdot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Inner product of two vectors, as `matmul`."""
    return jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST)
