"""The CG-DETR head: spans from attention in which dummy tokens take what the query does not say."""
