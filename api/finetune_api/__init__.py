"""Values that all packages share: the custom resources, the contract with the pods, the names.

This package contains values only. It imports pydantic and the standard library, and reads neither
the clock nor the environment nor the network. Every other package may import it.
"""
