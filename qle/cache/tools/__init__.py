"""What looks after a cache: inspect, verify, convert, pack, merge, import and export, prune."""
