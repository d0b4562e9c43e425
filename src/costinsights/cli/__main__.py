"""``python -m costinsights.cli``, for where the command is not on the path."""

from __future__ import annotations

from costinsights.cli import main

main()
