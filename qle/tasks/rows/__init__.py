"""The task of scoring every row of a video for a query."""
