"""Text encoders: queries in, words out."""
