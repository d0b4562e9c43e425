"""Tests; see CONTRIBUTING.md for how they are arranged and what they need."""
