"""A plugin of pytest: replaces OTT's solver, keeps the listed tests, writes results.

Read by `__main__` through `-p`, in the environment variables `OTT_TESTS_SOLVER`
("jaxsns" or "ott") and `OTT_TESTS_RESULTS` (a file).
"""

import json
import os
import pathlib
import re

from experiments.ott_tests import chosen

RESULTS: dict[str, list[str]] = {}
NOW = {"test": ""}


def _name(nodeid: str) -> str:
    """Name without the folder of the checkout: file::class::test[case]."""
    return nodeid[nodeid.index("tests/") + len("tests/") :]


def pytest_collection_modifyitems(config, items):
    """Leave out what no solver but OTT's own can pass; say why in the results."""
    kept, dropped = [], []
    for item in items:
        reason = chosen.left_out(_name(item.nodeid))
        (dropped if reason else kept).append(item)
        if reason:
            RESULTS[_name(item.nodeid)] = ["left out", reason]
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)


def pytest_configure(config):
    """Put our solver in place of OTT's, for the whole session.

    Where a test asks for derivatives of the loop, which we refuse, it gets OTT's
    solver: ours is compared with it there. Not where the comparison depends on the
    constant that may move between potentials: both are ours there.
    """
    if os.environ["OTT_TESTS_SOLVER"] == "jaxsns":
        from ott.solvers.linear import sinkhorn

        from jaxsns import ott

        own = sinkhorn.Sinkhorn
        replaced = ott.in_place_of_sinkhorn()
        replaced.__enter__()
        ours = sinkhorn.Sinkhorn

        def made(*args, **given):
            if given.get("implicit_diff", True) is not None:
                return ours(*args, **given)
            if chosen.depends_on_gauge(NOW["test"]):
                return ours(*args, **given | {"implicit_diff": True})
            return own(*args, **given)

        sinkhorn.Sinkhorn = made
        config.add_cleanup(lambda: replaced.__exit__(None, None, None))


def pytest_runtest_setup(item):
    """Remember which test runs."""
    NOW["test"] = item.nodeid


def pytest_runtest_logreport(report):
    """Keep the outcome of a test, and the last line of its error."""
    if report.when == "call" or report.outcome != "passed":
        said = ""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr)
            said = re.sub(r"\s+", " ", text)[:240]
        RESULTS[_name(report.nodeid)] = [report.outcome, said]
        # At once: a session may be ended before it is through.
        path = pathlib.Path(os.environ["OTT_TESTS_RESULTS"])
        path.write_text(json.dumps(RESULTS, indent=1, sort_keys=True))
