"""The reference pages, made from what the code says of itself (`python -m docs.generate`).

A module here is one source: the CRDs, the reasons and Events in the source code, the metrics'
registries, the command line, the chart's values.
"""
