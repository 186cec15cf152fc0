"""Relevance maps as pictures, faithfulness, the report page. Frames come in as arrays: nothing here decodes."""
