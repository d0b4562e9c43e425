"""azure-storage-blob, and adlfs above it: every request to Azure Blob Storage, as it is billed.

Measured: each HTTP request of the client and its ``aio`` twin, retries among them, by the type of
operation that prices it (write, read, list and create container, other, iterative, free), by account,
container and access tier, with the bytes of the bodies, errors and retries, added up for a second at
most. An upload is one write, or one for each block and one more; a download one read for each
chunk; a page of a list one; the requests of a batch one each. Azure bills failures too, except
those of authentication. On an account with a hierarchical namespace, a read or write of more than
4 MiB counts once for each 4 MiB.

- No answer says where an account is, and few say its tier and redundancy: say it once, ``[[resource]]``
  with ``host = "ACCOUNT.blob.core.windows.net"``, ``region`` and
  ``dimensions = { access_tier = "hot", redundancy = "lrs" }``.
- Prices of an account's own are used where the program has asked for them (``get_account_information``).

Not seen: addresses with a shared access signature that somebody else uses; AzCopy and other tools;
reads at the source of a copy between accounts; early deletion, replication, change feed: the bill has
them. Of a body that breaks off, all of it is counted as received.
"""

from __future__ import annotations

from costinsights_instrumentors._azure_storage import (
    DOWNLOADS,
    UPLOADS,
    AzureStorageInstrumentor,
    hooks_of,
)

HERE = "azure.storage.blob"


class AzureStorageBlobInstrumentor(AzureStorageInstrumentor):
    name = "azure_storage_blob"
    driver = HERE
    supports = ("12.14", "13")
    hooks = hooks_of(HERE, UPLOADS, DOWNLOADS)
    verified = "emulator: Azurite 3"
