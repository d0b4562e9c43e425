"""How many examples a property is tried on, in the profile of hypothesis that is loaded."""

from __future__ import annotations

import hypothesis


def examples(usual: int) -> int:
    """`usual`, or as large a part of it as the profile has of hypothesis's own hundred."""
    return max(usual * hypothesis.settings().max_examples // 100, min(usual, 5))
