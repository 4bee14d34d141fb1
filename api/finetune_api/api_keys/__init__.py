"""API keys of the gateway: their form, and the records of them in a Secret. Pure.

A key is `sk-ft-` and 43 random characters. Only its SHA-256 is stored, unsalted: no one can guess
32 random bytes. The record names the ServiceAccount that the gateway impersonates for the key.
"""

from finetune_api.api_keys.key import PREFIX, hash_key, is_key, new_key
from finetune_api.api_keys.record import SECRET_NAME, KeyRecord, entry_name

__all__ = ["PREFIX", "SECRET_NAME", "KeyRecord", "entry_name", "hash_key", "is_key", "new_key"]
