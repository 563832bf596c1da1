"""The cost of sessions: sojourn, its peers, and applications without sessions, measured in turn.

Each module with a `main` is a command (`python -m benchmarks.cpu_time`); `python -m benchmarks`
runs those of RESULTS.md. README.md describes the commands and the method.
"""
