"""One device: rows of many videos become clips, batches, tokens, and committed videos."""
