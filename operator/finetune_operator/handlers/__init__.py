"""Shells around the decision: triggers put keys on one queue, workers reconcile them."""
