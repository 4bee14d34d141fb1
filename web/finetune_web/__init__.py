"""What the HTTP servers of the project share: errors, answers, streams, and how they start."""
