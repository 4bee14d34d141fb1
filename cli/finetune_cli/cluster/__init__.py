"""The API server as plain dicts: requests, readable errors, and watches that reconnect."""
