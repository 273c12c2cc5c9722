"""Sample data sets, each with the score that says whether a model has learned it."""
