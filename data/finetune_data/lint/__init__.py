"""Checks of data before training: a check reports remarks, and a remark can propose a fix.

A check observes every batch once, column by column, and remembers little. Rows are identified by
their ordinal, the number of examples read before them, which no fix changes. A fix says whether it
loses anything. Nothing here asks, prints, or writes.

To add a check, write a subclass of `check.Check` in a new module of `checks`, and add it to
`registry.CHECKS`.
"""
