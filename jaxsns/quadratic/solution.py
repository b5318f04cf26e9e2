"""What `solve_quadratic` returns."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxsns import hints
from jaxsns.numerics import root
from jaxsns.quadratic import forms
from jaxsns.quadratic.terms import Terms
from jaxsns.recording import summary
from jaxsns.solution import Solution, require_converged
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class QuadraticSolution:
    """Plan of a quadratic problem, as the solution of a linear one.

    Attributes:
      linear: solution of the linear problem whose cost is C(P) of this very plan, in
        `unit`; with a share it has virtual atoms, which stand last.
      unit: [] of the numbers in `linear`: a power of two, 1 unless costs are so large
        or small that their squares do not fit into the dtype.
      terms: what was solved.
      f: [n] row potentials of the linearised cost C(P), in its units.
      g: [m] column potentials.
      value: [] objective, see `solve_quadratic`.
      plan_change: [] L1 change of the plan that one more step made, over its mass.
      status: [] int32, a `Status`.
      steps: [] int32 linear problems solved.

    All of it carries the derivative of the exact stationary point (implicit). A
    solution that came out of `vmap` answers for all its lanes at once.
    """

    linear: Solution
    unit: jax.Array
    terms: Terms
    f: jax.Array
    g: jax.Array
    value: jax.Array
    plan_change: jax.Array
    status: jax.Array
    steps: jax.Array

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name)

    @property
    def _virtual(self) -> int:
        return 0 if self.terms.share is None else 1

    def _rows(self, x: jax.Array, axis: int = -1) -> jax.Array:
        size = x.shape[axis] - self._virtual
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)

    @property
    def error(self) -> jax.Array:
        """[] L1 error of both marginals of the plan, relative to the mass.

        With a share of them that of virtual atoms too, relative to all mass: what is
        moved is known to about this over the share.
        """
        return self.linear.error

    @property
    def converged(self) -> jax.Array:
        """[] bool: the plan's change and its marginal error are within tolerance."""
        return self.status == code(Status.CONVERGED)

    @property
    def epsilon(self) -> jax.Array:
        """[] regularisation of the objective, in units of its cost."""
        return self.terms.masses.epsilon

    @property
    def cost(self) -> jax.Array:
        """[n, m] linearised cost C(P), of which f and g are potentials."""
        geometry = self.linear.problem.geometry.dense()
        unit = self.unit[..., None]
        cost = unit[..., None] * self._rows(self._rows(geometry.cost, -2), -1)
        if self._virtual:
            return cost
        # Of a streamed problem, what the potentials differ by.
        rows, columns = self.f - unit * self.linear.f, self.g - unit * self.linear.g
        known = lambda x: jnp.where(jnp.isnan(x), 0, x)
        return cost + known(rows)[..., :, None] + known(columns)[..., None, :]

    @property
    def quadratic_cost(self) -> jax.Array:
        """[] Q(P) = sum loss(x_ik, y_jl) P_ij P_kl, without weight or entropy."""
        function = forms.quadratic_cost
        for _ in range(self.status.ndim):
            function = jax.vmap(function)
        return function(self.terms, self.linear.problem, self.linear.f, self.linear.g)

    @property
    def distance(self) -> jax.Array:
        """[] Gromov-Wasserstein distance, the root of `quadratic_cost`.

        In the unit of the costs for the square loss (Memoli halves it). It is that of
        the plan, so above the distance without entropy. Its derivative is 0 at 0.
        """
        return root(self.quadratic_cost)

    def plan(self) -> jax.Array:
        """[n, m] the plan, in mass."""
        return self._rows(self._rows(self.linear.plan(), -2), -1)

    def marginals(self) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of the plan."""
        if not self._virtual:
            return self.linear.marginals()
        plan = self.plan()
        return jnp.sum(plan, axis=-1), jnp.sum(plan, axis=-2)

    def _padded(self, v: jax.Array) -> jax.Array:
        v = jnp.asarray(v)
        if not self._virtual:
            return v
        widths = [(0, 0)] * v.ndim
        widths[self.linear.f.ndim - 1] = (0, self._virtual)
        return jnp.pad(v, widths)

    def apply(self, v: jax.Array, axis: int = 1) -> jax.Array:
        """Plan times v ([m] or [m, k] -> [n, ...]); axis=0: its transpose times v."""
        out = self.linear.apply(self._padded(v), axis)
        return self._rows(out, self.linear.f.ndim - 1)

    def barycentric(self, points: jax.Array, axis: int = 1) -> jax.Array:
        """Mean of `points` [m, d] under each row of the plan, [n, d].

        axis=0: mean of points [n, d] under each column. Atoms without mass get 0.
        """
        if not self._virtual:
            return self.linear.barycentric(points, axis)
        sums = self.apply(points, axis)
        mass = self.marginals()[0 if axis == 1 else 1]
        mass = mass.reshape(mass.shape + (1,) * (sums.ndim - mass.ndim))
        return jnp.where(mass > 0, sums / jnp.where(mass > 0, mass, 1), 0)

    def raise_if_failed(self) -> "QuadraticSolution":
        """Return self if every batch element converged, else raise `NotConvergedError`.

        Outside `jit` only: a traced status cannot raise.
        """
        require_converged(self.status, self.plan_change)
        return self

    def __repr__(self) -> str:
        """Say in one line what was solved and how it went."""
        n, m = self.terms.x.size, self.terms.y.size
        head = f"QuadraticSolution({n} x {m}, {self.linear.f.dtype}"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        if self.status.ndim:
            found = summary.ends(self.status)
            return summary.screen(f"{head}, batch={self.status.shape}, {found})")
        return summary.screen(
            f"{head}, {Status(int(self.status)).name}, value={float(self.value):.9g}, "
            f"plan change={float(self.plan_change):.1e}, "
            f"marginal error={float(self.error):.1e}, steps={int(self.steps)})"
        )
