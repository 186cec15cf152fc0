"""Moments: what a head that answers with spans is trained on. Items are (window of clips, query) pairs."""
