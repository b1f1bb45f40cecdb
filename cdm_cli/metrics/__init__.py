"""Arrays in, numbers out: features, distances and scores."""
