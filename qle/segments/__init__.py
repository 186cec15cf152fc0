"""Arithmetic of spans of time: from score tracks and candidates to moments. No torch."""
