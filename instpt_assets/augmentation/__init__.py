"""Pairs become pre-training text: phrasings (data files), layouts, the augmented corpus and its quality."""
