"""Generate the reference pages from the code (`python -m docs.generate`).

Each module has one source: the CRDs, the reasons and Events in the source code, the registries of
metrics, the command line, or the chart values.
"""
