"""Decode once, forward once, write once: from video files to committed tokens."""
