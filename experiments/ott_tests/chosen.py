"""Which of OTT's tests are run, and why others are not."""

import re

FILES = (
    "solvers/linear/sinkhorn_test.py",
    "solvers/linear/sinkhorn_diff_test.py",
    "solvers/linear/sinkhorn_misc_test.py",
    "tools/soft_sort_test.py",
    "tools/sinkhorn_divergence_test.py",
    "tools/segment_sinkhorn_test.py",
    "problems/linear/potentials_test.py",
    "solvers/quadratic/gw_test.py",
    "solvers/quadratic/fgw_test.py",
    "solvers/quadratic/gw_barycenter_test.py",
    "solvers/quadratic/lower_bound_test.py",
)

# By pattern of file::class::test[case]; the first that matches counts.
UNROLLED = "asks for derivatives of the loop; ours are implicit"
LOOP = "looks at OTT's loop: its list of errors, counts or callbacks"
LOW_RANK = "a low-rank solver, which stays OTT's"
LEFT_OUT = (
    (r"versus_autodiff", UNROLLED),
    (r"test_apply_transport_jacobian", UNROLLED),
    (r"TestSinkhornJacobian::test_potential_jacobian_sinkhorn", UNROLLED),
    (r"lse-backprop", UNROLLED),
    (r"test_jit_vs_non_jit_bwd\[False\]", UNROLLED),
    (r"test_soft_sort_jacobian\[False\]", UNROLLED),
    (r"min_iter", LOOP),
    (r"progress_fn", LOOP),
    (r"test_anderson", LOOP),
    (r"online_memory", "measures memory with a plugin"),
    (r"test_gw_lr_apply|gwlr|fgw_lr|test_gw_pointcloud\[True-3\]", LOW_RANK),
    (r"test_gw_implicit_conversion", LOW_RANK),
    (r"low_rank|_lr\b|rank", LOW_RANK),
)


def left_out(name: str) -> str | None:
    """Why a test is not run, or None."""
    test = name.split("::", 1)[-1]
    # These compare the low-rank solver with one on ours.
    if re.search(r"test_rank_one_array|test_gw_lr($|_matches_fused)", test):
        return None
    for pattern, reason in LEFT_OUT:
        if re.search(pattern, test):
            return reason
    return None


def depends_on_gauge(name: str) -> bool:
    """Whether a test compares gradients in masses, which a constant may shift."""
    return "test_gradient_marginals" in name
