"""Files of predictions that other programs wrote: reading, measuring and writing them."""
