"""POT and OTT-JAX in a process of their own; see `peer_process` of the benchmarks."""

import time

import numpy as np

from experiments.benchmarks.peer_process import serve


def pot(arrays, options):
    """Entropic (fused) Gromov-Wasserstein by projected gradients."""
    import ot

    more = {"epsilon": options["epsilon"], "max_iter": options["max_iter"]}
    more |= {"tol": options["tol"], "log": True, "symmetric": True}
    begin = time.perf_counter()
    if "linear" in arrays:
        plan, log = ot.gromov.entropic_fused_gromov_wasserstein(
            arrays["linear"], arrays["x"], arrays["y"], alpha=options["alpha"], **more
        )
    else:
        plan, log = ot.gromov.entropic_gromov_wasserstein(
            arrays["x"], arrays["y"], **more
        )
    return {"plan": plan}, {"seconds": time.perf_counter() - begin}


def pot_unbalanced(arrays, options):
    """Fused unbalanced Gromov-Wasserstein; its weight is that of the linear term."""
    import ot

    begin = time.perf_counter()
    plan, other, _ = ot.gromov.fused_unbalanced_gromov_wasserstein(
        arrays["x"], arrays["y"], arrays["a"], arrays["b"],
        reg_marginals=options["rho"], epsilon=options["epsilon"], divergence="kl",
        unbalanced_solver="sinkhorn", alpha=options["alpha"], M=arrays["linear"],
        max_iter=1000, tol=1e-7, max_iter_ot=1000, tol_ot=1e-7, log=True,
    )  # fmt: skip
    return {"plan": plan, "other": other}, {"seconds": time.perf_counter() - begin}


def ott(arrays, options):
    """Entropic Gromov-Wasserstein; its epsilon is half of ours. Second call timed."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from ott.geometry import geometry
    from ott.problems.quadratic import quadratic_problem
    from ott.solvers.linear import sinkhorn
    from ott.solvers.quadratic import gromov_wasserstein

    x, y = (geometry.Geometry(cost_matrix=jnp.asarray(arrays[k])) for k in ("x", "y"))
    problem = quadratic_problem.QuadraticProblem(x, y)
    solver = gromov_wasserstein.GromovWasserstein(
        linear_solver=sinkhorn.Sinkhorn(),
        epsilon=options["epsilon"] / 2,
        max_iterations=options["max_iter"],
    )
    run = jax.jit(solver)
    for _ in range(2):
        begin = time.perf_counter()
        out = jax.block_until_ready(run(problem))
        seconds = time.perf_counter() - begin
    return {"plan": np.asarray(out.matrix)}, {
        "seconds": seconds,
        "steps": int(out.n_iters),
        "converged": bool(out.converged),
    }


def ott_low_rank(arrays, options):
    """Gromov-Wasserstein of points by plans of low rank; the first call is timed."""
    import jax
    import jax.numpy as jnp
    from ott.geometry import pointcloud
    from ott.initializers.linear import initializers_lr
    from ott.problems.quadratic import quadratic_problem
    from ott.solvers.quadratic import gromov_wasserstein_lr

    clouds = (pointcloud.PointCloud(jnp.asarray(arrays[k])) for k in ("x", "y"))
    rank = options["rank"]
    solver = gromov_wasserstein_lr.LRGromovWasserstein(
        rank=rank, epsilon=0.0, initializer=initializers_lr.RandomInitializer(rank)
    )
    begin = time.perf_counter()
    out = jax.block_until_ready(solver(quadratic_problem.QuadraticProblem(*clouds)))
    seconds = time.perf_counter() - begin
    factors = {"q": np.asarray(out.q), "r": np.asarray(out.r), "g": np.asarray(out.g)}
    return factors, {"seconds": seconds, "converged": bool(out.converged)}


if __name__ == "__main__":
    peers = {"pot": pot, "pot_unbalanced": pot_unbalanced, "ott": ott}
    serve(peers | {"ott_low_rank": ott_low_rank})
