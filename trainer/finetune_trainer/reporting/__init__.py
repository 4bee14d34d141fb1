"""report.html and the model card: what a run did, for people, from values alone.

`page` and `card` are pure: a `ReportData` in, one text out, and nothing is fetched by either. What
strangers wrote (file names, prompts, completions, labels) is escaped where it is put into markup:
by jinja2 in the page, by `markdown` in the card. `samples` alone knows the model.
"""
