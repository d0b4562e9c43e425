"""What usage costs: dated list prices with their sources, your own rates, and shared capacity.

`PriceBook.load()` gives the book, `PriceBook.quote` the price of a usage, and
`PriceBook.capacity_for` the hourly price of a database, shared fairly among the calls on it.
The format of a price file is told in docs/prices.md.
"""

from __future__ import annotations

from costinsights.pricing.book import PriceBook
from costinsights.pricing.capacity import Capacity
from costinsights.pricing.errors import PriceBookError
from costinsights.pricing.line import Discount, Meter, Part, PriceLine, Quote

__all__ = [
    "Capacity",
    "Discount",
    "Meter",
    "Part",
    "PriceBook",
    "PriceBookError",
    "PriceLine",
    "Quote",
]
