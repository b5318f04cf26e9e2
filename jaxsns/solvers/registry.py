"""The methods there are, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxsns.solvers.kernel_loop import Method
from jaxsns.solvers.newton import newton
from jaxsns.solvers.options import (
    NewtonOptions,
    Options,
    SinkhornOptions,
    SNSOptions,
)
from jaxsns.solvers.sinkhorn import fixed_length, overrelaxed, symmetric

# "auto" sweeps on where the measured contraction predicts at most so many more
# sweeps; a Newton step costs about as much.
AUTO_PATIENCE = 12.0  # sweeps [D11]
SINKHORN_SWEEPS = 20_000  # at most [D11]


class Entry(NamedTuple):
    """A method by name: its options, its step on a kernel, its path."""

    options: Options
    on_kernel: Callable[[Any], Method] | None  # of the options; None: a loop of its own
    path: bool  # follow epsilon by default


_NEWTON = lambda options: newton.method(options.linear_solver)

METHODS = {
    "auto": Entry(NewtonOptions(patience=AUTO_PATIENCE), _NEWTON, True),
    "newton": Entry(NewtonOptions(), _NEWTON, True),
    "sinkhorn": Entry(
        SinkhornOptions(), lambda o: overrelaxed.method(o.overrelaxation), False
    ),
    "fixed": Entry(
        SinkhornOptions(early_stop=False), lambda _: fixed_length.METHOD, False
    ),
    "symmetric": Entry(SinkhornOptions(), lambda _: symmetric.METHOD, False),
    "sns": Entry(SNSOptions(), None, False),
}


def find(method: str | Options, early_stop: bool = True) -> tuple[str, Entry]:
    """Name and method for a name or an options object; raise if it is neither.

    Without `early_stop` it is a fixed number of sweeps, whichever of "auto",
    "sinkhorn" and "fixed" was asked for; the other methods have no such form.
    """
    if isinstance(method, SinkhornOptions) and not method.early_stop:
        return "fixed", METHODS["fixed"]._replace(options=method)
    if not early_stop:
        if method in ("auto", "sinkhorn", "fixed"):
            return "fixed", METHODS["fixed"]
        raise ValueError(
            "early_stop=False runs a fixed number of Sinkhorn sweeps: method must be "
            f"'auto', 'sinkhorn' or 'fixed'; got {method!r}"
        )
    if isinstance(method, str):
        if method not in METHODS:
            names = ", ".join(repr(name) for name in METHODS)
            raise ValueError(
                f"method must be one of {names} or an options object; got {method!r}"
            )
        return method, METHODS[method]
    for name, known in METHODS.items():
        if isinstance(method, type(known.options)) and name != "auto":
            return name, known._replace(options=method)
    raise TypeError(
        "method must be a name or NewtonOptions, SinkhornOptions or SNSOptions; "
        f"got {type(method).__name__}"
    )
