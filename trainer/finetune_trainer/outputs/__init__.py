"""What a run writes while it trains: the log, results.csv, and the progress of the pod."""
