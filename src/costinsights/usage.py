"""What a call used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Usage(msgspec.Struct, frozen=True):
    """What a call used, as the client knows it.

    ``rows`` counts rows returned or affected, None when the driver does not say; ``meters`` holds
    further quantities in the system's own meters; ``vendor_id`` is the system's id of the call.
    """

    rows: int | None = None
    meters: Mapping[str, int | float | str] | None = None
    vendor_id: str | None = None
