"""What the process has besides OpenAI's API: its sockets, its certificate, probes, and metrics."""
