"""Making a new bundle: data sets, splits, the loop, evaluation and packaging."""
