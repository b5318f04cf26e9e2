"""Run as `python -m experiments.benchmarks.setup_peers`: installs the peers.

Two virtual environments under `.peers`, which git ignores: `ott` has OTT-JAX with the
last jax that it works with in full, `cpu` has RegOT, POT and MDOT-TNT.
"""

import argparse
import shutil
import subprocess
import sys

from experiments.benchmarks.arena import PEERS_FOLDER
from experiments.benchmarks.peer_process import ROOT

PACKAGES = {
    "ott": [["ott-jax==0.6.0", "jax==0.8.1", "jaxlib==0.8.1"]],
    "cpu": [
        ["regot==0.0.3", "pot==0.9.7.post1", "scipy"],
        ["torch==2.13.0", "mdot-tnt==1.0.0"],  # may fail: the page then says so
    ],
}


def main() -> None:
    """Make what is missing; `--again` begins afresh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="remove them first")
    parser.add_argument("--cuda", action="store_true", help="OTT-JAX for a GPU too")
    options = parser.parse_args()
    for name, groups in PACKAGES.items():
        folder = ROOT / PEERS_FOLDER / name
        if options.again:
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
        for packages in groups:
            extra = ["jax[cuda12]==0.8.1"] if options.cuda and name == "ott" else []
            done = subprocess.run(pip + packages + extra, check=False)
            result = "installed" if done.returncode == 0 else "FAILED"
            print(f"{', '.join(packages + extra)}: {result}", flush=True)


if __name__ == "__main__":
    main()
