"""Tokens on disk: layout, records, stores, reader, and the tools that look after them. No torch here."""
