"""The cost of the gateway: time that it adds to a completion, and its memory.

The gateway runs as its own process, between a client and a server of completions that answers at
once. `peers` has that server, and an API server with one Model.
"""
