"""From cached tokens and annotations to batches of windows with their questions."""
