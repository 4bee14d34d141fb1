"""What is said about data before anybody trains on it: a check a rule, a fix a proposal.

A check looks at every batch once, column by column, and remembers little; rows are known by their
ordinal, the number of examples read before them, which no fix changes. A fix says whether anything
is lost by it. Nothing here asks, prints or writes.
"""
