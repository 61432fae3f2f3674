"""The training wing: from an untrained classifier and a dataset to a trained one, the same for the same seed."""
