"""What heads share, once: layers, positions, temporal mixers, losses."""
