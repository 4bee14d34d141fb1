"""The API server, as plain dicts: requests, errors that are sentences, watches that heal."""
