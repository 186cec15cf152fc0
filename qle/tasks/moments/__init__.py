"""The task of answering a query with spans of a video."""
