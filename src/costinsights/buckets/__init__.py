"""How large buckets are, by class, from the cheapest source that says so: docs/storage.md."""

from __future__ import annotations

from costinsights.buckets.sizing import Held, Sized, StorageError, sizes

__all__ = ["Held", "Sized", "StorageError", "sizes"]
