"""The cost of sessions, measured side by side: sojourn, its peers, and applications without any.

Each module with a `main` is a command (`python -m benchmarks.cpu_time`); `python -m benchmarks`
runs those of RESULTS.md. README.md describes the commands and the method.
"""
