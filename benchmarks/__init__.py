"""What costinsights costs, as ratios against named peers that are measured beside it.

`python -m benchmarks` runs everything and prints tables, `python -m benchmarks overhead startup`
some of it, `python -m benchmarks --markdown` the table of the README. `python -m benchmarks.gate`
holds the promised ratios and is what CI runs.
"""
