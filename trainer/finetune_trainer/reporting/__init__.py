"""The training report (report.html), the model card (README.md), and the advice for the next run.

`page` and `card` are pure: each turns a `ReportData` into one text and loads nothing. Text that
comes from users (file names, prompts, completions, labels) is escaped when it is put into markup:
by jinja2 in the page, by `markdown` in the card. Only `samples` knows the model, and only `writer`,
`report_files`, and `run_history` know S3. `writer` is what the ranks call.
"""
