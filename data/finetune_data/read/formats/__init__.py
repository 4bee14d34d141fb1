"""Bytes to records: one file a format, each a generator of (line, record | Finding).

A record is a dict of column name to value, as the format has it: text stays text, `NA`, `null`
and `007` included. Whatever the bytes are, the answer is a record or a Finding, never an
exception, and memory does not grow with the file (a workbook's table of texts is the exception).
A fatal Finding is the last thing that comes.
"""
