"""From queries and videos to moments, files, pictures and a report."""
