"""Retrieval: which video does a text speak of? What a head that ranks videos is trained on."""
