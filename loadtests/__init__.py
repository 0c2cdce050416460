"""Load: a small town on the wire, a generator in a process of its own, the benchmark, and locust for those who want its UI."""
