"""What vendors' own answers mean: facts that an instrumentor and a history reader have in common.

The one sees the answer to the program pass by, the other asks for itself. One file a system, under
its key with dots as underscores; nothing here imports a client library.
"""
