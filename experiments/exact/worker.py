"""POT's network simplex in a process of its own; see `peer_process`."""

import time

from experiments.benchmarks.peer_process import serve


def emd(arrays, options):
    """Cost of each problem [k, n, n] one after another, and seconds of each."""
    import ot

    del options
    begin, used = time.perf_counter(), time.process_time()
    values = [
        ot.emd2(arrays["a"], arrays["b"], cost, numItermax=10_000_000)
        for cost in arrays["cost"]
    ]
    seconds = time.perf_counter() - begin
    used = time.process_time() - used
    facts = {"seconds": seconds, "processor": used, "values": list(map(float, values))}
    return {}, facts


if __name__ == "__main__":
    serve({"emd": emd})
