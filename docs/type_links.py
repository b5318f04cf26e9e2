"""Hook of mkdocs: types of JAX, NumPy and Python in signatures link to their pages.

mkdocstrings would read an inventory from each project's site, and so need the network.
"""

from mkdocs.config.defaults import MkDocsConfig

JAX = "https://docs.jax.dev/en/latest"
PYTHON = "https://docs.python.org/3/library"
NUMPY = "https://numpy.org/doc/stable/reference/generated"
PAGES = {
    "jax.Array": f"{JAX}/_autosummary/jax.Array.html",
    "jax.typing.ArrayLike": f"{JAX}/_autosummary/jax.typing.ArrayLike.html",
    "jax.sharding.Mesh": f"{JAX}/jax.sharding.html#jax.sharding.Mesh",
    "jax.experimental.sparse.BCOO": (
        f"{JAX}/_autosummary/jax.experimental.sparse.BCOO.html"
    ),
    "numpy.ndarray": f"{NUMPY}/numpy.ndarray.html",
    "collections.abc.Callable": (
        f"{PYTHON}/collections.abc.html#collections.abc.Callable"
    ),
    "collections.abc.Sequence": (
        f"{PYTHON}/collections.abc.html#collections.abc.Sequence"
    ),
    "typing.Any": f"{PYTHON}/typing.html#typing.Any",
    "typing.NamedTuple": f"{PYTHON}/typing.html#typing.NamedTuple",
    **{
        name: f"{PYTHON}/stdtypes.html#{name}"
        for name in ("str", "tuple", "list", "dict")
    },
    **{name: f"{PYTHON}/functions.html#{name}" for name in ("int", "float", "bool")},
    **{
        name: f"{PYTHON}/exceptions.html#{name}"
        for name in ("ValueError", "TypeError", "ImportError")
    },
}


def on_files(files, config: MkDocsConfig) -> None:
    """Tell the plugin of cross-references where the types are described."""
    for name, page in PAGES.items():
        config.plugins["autorefs"].register_url(name, page)
