"""One resource a system: its ordinary client, with costinsights switched on.

Each is in a file of its own and is built on the official integration's class where there is one, so
that none needs more than its own client. `costinsights.dagster` finds them by name.
"""
