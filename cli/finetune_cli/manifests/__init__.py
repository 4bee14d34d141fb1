"""Manifests as people write them: reading, checking, and uploading their files."""
