"""Raw corpora: sources and formats, normalising, deduplication, cleaning, passages."""
