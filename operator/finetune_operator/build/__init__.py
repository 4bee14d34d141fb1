"""Manifests: pure functions from values to whole objects, never the API, never a changed input."""
