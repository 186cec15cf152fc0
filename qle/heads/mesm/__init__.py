"""The MESM head: spans from words and sentences that it learns to rebuild."""
