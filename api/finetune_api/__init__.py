"""Values that every room shares: the custom resources, the contract with the pods, the names.

The rule of this room: values only. It imports pydantic and the standard library, reads no clock,
no environment and no network, so every room may import it and its import costs nothing.
"""
