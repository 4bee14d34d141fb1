"""The names of the metrics, as users read and write them."""

# Grades of one answer, whose metric is their mean.
EXACT_MATCH, TOKEN_F1 = "exact match", "token F1"
PATTERN, SCHEMA = "matches the pattern", "conforms to the schema"  # only if requested
# Of classes only.
WEIGHTED_F1, MACRO_F1 = "weighted F1", "macro F1"
CALIBRATION_ERROR, BRIER = "calibration error", "Brier score"

ENDED = "answers that end"

CLASS_METRICS = (WEIGHTED_F1, MACRO_F1, CALIBRATION_ERROR, BRIER)
COMPARABLE = (EXACT_MATCH, TOKEN_F1, PATTERN, SCHEMA, *CLASS_METRICS)  # by a gate
LOWER_IS_BETTER = frozenset({CALIBRATION_ERROR, BRIER})
