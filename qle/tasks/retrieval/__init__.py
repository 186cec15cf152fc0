"""The task of ranking videos for a text."""
