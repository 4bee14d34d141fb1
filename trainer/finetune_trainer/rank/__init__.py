"""One rank: one process per GPU. It loads, trains, checkpoints, and publishes."""
