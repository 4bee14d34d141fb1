"""`finetune create`: builds a manifest, checks it, uploads local files, and creates it."""
