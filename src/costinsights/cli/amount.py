"""An amount of money on the command line: apart, because ``costinsights run`` needs no report."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click


class Amount(click.ParamType[Decimal]):
    """An amount of money in whatever currency the charges have."""

    name = "amount"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        """Read an amount that is not negative."""
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r} is not an amount of money: write 5.00", param, ctx)
        return amount
