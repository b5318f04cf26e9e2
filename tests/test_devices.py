"""Several devices and several processes: the same answers as one."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxsns
from jaxsns import Status

HERE = pathlib.Path(__file__).parent


def _start(script, *arguments):
    environment = dict(os.environ, JAX_PLATFORMS="cpu")
    # How arrays are divided is decided with XLA's passes over loops, as for users.
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [flag for flag in flags if "disable_hlo_passes" not in flag]
    environment["XLA_FLAGS"] = " ".join(flags)
    environment["PYTHONPATH"] = (
        str(HERE.parent) + os.pathsep + environment.get("PYTHONPATH", "")
    )
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_eight_devices():
    process = _start("on_devices.py")
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output


def test_inside_shard_map():
    process = _start("on_shard_map.py")
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output


def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    files = [tmp_path / f"{k}.npz" for k in range(2)]
    processes = [
        _start("on_hosts.py", k, 2, address, path) for k, path in enumerate(files)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    points = np.random.default_rng(0).normal(size=(2, 200, 2))
    cloud = jaxsns.PointCloud(*map(jnp.asarray, points), streamed=False)
    masses = jnp.arange(1.0, 201.0)
    alone = jaxsns.solve(cloud, masses / jnp.sum(masses), epsilon=0.05, tolerance=1e-13)
    for path in files:
        with np.load(path) as found:
            assert int(found["devices"]) == 4
            assert int(found["status"]) == Status.CONVERGED
            np.testing.assert_allclose(found["f"], alone.f, atol=1e-10)
            np.testing.assert_allclose(found["g"], alone.g, atol=1e-10)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"axis": "rows"}, "mesh and axis go together"),
        ({"mesh": "one", "axis": "other"}, "axis must be one of"),
        ({"mesh": "one", "axis": "rows", "streamed": False}, "is streamed"),
        ({"mesh": "explicit", "axis": "rows"}, "must be of type .*Auto"),
    ],
)
def test_bad_meshes_are_refused(fields, words):
    if "mesh" in fields:
        kind = AxisType.Explicit if fields["mesh"] == "explicit" else AxisType.Auto
        mesh = jax.make_mesh((1,), ("rows",), axis_types=(kind,))
        fields = {**fields, "mesh": mesh}
    x = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match=words):
        jaxsns.PointCloud(x, x, **fields)
