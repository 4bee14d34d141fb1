"""Manifests: pure functions from values to whole objects. They use no API and change no input."""
