"""From streams of clips and annotations to batches of (window, query) items."""
