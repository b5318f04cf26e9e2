"""The methods there are, by name."""

from collections.abc import Callable
from typing import NamedTuple

from jaxsns.solvers import sns
from jaxsns.solvers.newton import newton
from jaxsns.solvers.newton.newton import NewtonOptions
from jaxsns.solvers.sinkhorn import fixed_length as fixed
from jaxsns.solvers.sinkhorn import overrelaxed, symmetric
from jaxsns.solvers.sinkhorn.overrelaxed import SinkhornOptions
from jaxsns.solvers.sns import SNSOptions

Options = NewtonOptions | SinkhornOptions | SNSOptions

# "auto" sweeps on where the measured contraction predicts at most so many more
# sweeps; a Newton step costs about as much.
AUTO_PATIENCE = 12.0


class Method(NamedTuple):
    """An iteration: its options, how it starts, and how one level of it runs."""

    options: Options
    init: Callable
    level: Callable  # one update, or a run, at one epsilon
    path: bool  # follow epsilon by default


METHODS = {
    "auto": Method(
        NewtonOptions(patience=AUTO_PATIENCE), newton.init, newton.update, True
    ),
    "newton": Method(NewtonOptions(), newton.init, newton.update, True),
    "sinkhorn": Method(SinkhornOptions(), overrelaxed.init, overrelaxed.update, False),
    "fixed": Method(
        SinkhornOptions(early_stop=False), overrelaxed.init, fixed.update, False
    ),
    "symmetric": Method(SinkhornOptions(), overrelaxed.init, symmetric.update, False),
    "sns": Method(SNSOptions(), sns.init, sns.run, False),
}


def find(method: str | Options, early_stop: bool = True) -> tuple[str, Method]:
    """Name and method for a name or an options object; raise if it is neither.

    Without `early_stop` it is a fixed number of sweeps, whichever of "auto" and
    "sinkhorn" was asked for; the other methods have no such form.
    """
    if isinstance(method, SinkhornOptions) and not method.early_stop:
        return "fixed", METHODS["fixed"]._replace(options=method)
    if not early_stop:
        if method in ("auto", "sinkhorn"):
            return "fixed", METHODS["fixed"]
        raise ValueError(
            "early_stop=False is a fixed number of Sinkhorn sweeps: method must be "
            f"'auto' or 'sinkhorn'; got {method!r}"
        )
    if isinstance(method, str):
        if method not in METHODS or method == "fixed":
            names = ", ".join(repr(name) for name in METHODS if name != "fixed")
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
