"""The QLE head: cross-attention over patch tokens, a relevance map, a score for every row."""
