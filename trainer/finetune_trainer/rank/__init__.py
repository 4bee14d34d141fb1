"""One process per GPU: it builds its parts, restores a checkpoint, trains, and publishes.

It does not import `launcher`; they exchange files (`workdir`).
"""
