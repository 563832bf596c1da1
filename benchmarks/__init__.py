"""What sessions cost, measured side by side: sojourn, its peers and the same app without sessions.

Each module is a command of its own (`python -m benchmarks.cpu_time`, `.instructions`, `.throughput`,
`.million`, `.hotspots`); `python -m benchmarks` runs the first three and writes RESULTS.md.
Nothing here is imported by the library or by its tests. Read README.md next.
"""
