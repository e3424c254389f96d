"""Dagster's face: assets, jobs and automation over the rooms. Nothing here computes; nothing here imports torch or vllm."""
