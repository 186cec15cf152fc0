"""What looks after a cache: inspect, verify, convert, pack, merge, relink, import and export, prune."""
