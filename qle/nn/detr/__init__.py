"""Parts of the Moment-DETR family: encoders, decoders, matching, and the losses over sets of spans."""
