"""Official checkpoints -> ours: pure key maps, one file per upstream."""
