"""From bytes to records: one module per format, each a generator of (line, record | Finding).

A record is a dict from column name to value, as the format stores it: text stays text, including
`NA`, `null`, and `007`. For any bytes, the result is a record or a Finding, never an exception.
Memory does not grow with the file, except for the table of texts of a workbook. A fatal Finding is
the last item.
"""
