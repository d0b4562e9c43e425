"""azure-storage-file-datalake: every request to Azure Data Lake Storage, as it is billed.

Measured: each HTTP request of the client and its ``aio`` twin, to the ``dfs`` endpoint and to that of
blobs, retries among them, by the type of operation that prices it (write, read, iterative write, iterative read, other,
free), by account, file system and access tier, with the bytes of the bodies, errors and retries,
added up for a second at most. A read or write of more than 4 MiB counts once for each 4 MiB; the
price of iterative writes is per 100. Failures are billed, except those of authentication.

- Downloads, properties, leases and file systems this client asks the Blob endpoint for, at times with
  an azure-storage-blob of its own, and those are seen there: both plug-ins are needed.
- Region, access tier and redundancy are said once, in a ``[[resource]]`` with
  ``host = "ACCOUNT.*.core.windows.net"``.

Not seen: what is not seen of azure-storage-blob; how many paths a recursive change of access control
has touched, of which each request counts once.
"""

from __future__ import annotations

from costinsights_instrumentors._azure_storage import UPLOADS, AzureStorageInstrumentor, hooks_of

HERE = "azure.storage.filedatalake"


class AzureStorageFileDatalakeInstrumentor(AzureStorageInstrumentor):
    name = "azure_storage_file_datalake"
    driver = HERE
    supports = ("12.9", "13")
    hooks = hooks_of(HERE, UPLOADS)
    verified = "emulator: own server of the dfs endpoint"
    lake = True
