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
)

# By pattern of file::class::test[case]; the first that matches counts.
UNROLLED = "asks for derivatives of the loop; ours are implicit"
LOOP = "looks at OTT's loop: its list of errors, counts or callbacks"
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
    (r"low_rank|_lr\b|rank", "a low-rank solver, which stays OTT's"),
)


def left_out(name: str) -> str | None:
    """Why a test is not run, or None."""
    test = name.split("::", 1)[-1]
    if re.search(r"test_rank_one_array", test):
        return None
    for pattern, reason in LEFT_OUT:
        if re.search(pattern, test):
            return reason
    return None
