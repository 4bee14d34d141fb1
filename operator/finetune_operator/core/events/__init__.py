"""The Events in the status: their numbers, and the fields that earlier versions did not write."""
