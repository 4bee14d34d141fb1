"""The model cache: base models that stay on a volume, for later attempts and other FineTunes.

Only weights are kept. Everything else of a model is small and always comes from its source, which
proves that the pod may read the model, and keeps configuration and templates of others out of it.
Pods of other tenants may be able to write to the volume: nothing here follows a symbolic link,
reads a file of an unknown owner, or loads anything but safetensors and JSON.

    v1/entries/<digest>/model*.safetensors   the digest of the model's address, sizes, and ETags
    v1/entries/<digest>/verified.json        written last: an entry without it is incomplete
    v1/locks/<digest>.use, <digest>.download, space   never removed
"""
