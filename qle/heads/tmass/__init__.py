"""The T-MASS head: ranks videos by the distance of their frames to a text that is drawn from a ball."""
