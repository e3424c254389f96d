"""Artifacts on fsspec: what a materialization leaves, found again by the identity of what it was made from."""
