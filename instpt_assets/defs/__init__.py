"""Dagster's face: assets, jobs and automation over the rooms. Nothing here computes; nothing here imports torch or vllm."""

import warnings

import dagster as dg

# Backfill policies are marked beta in 1.13; one warning an asset tells nobody anything.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
