"""Dagster's face: assets, jobs and automation over the rooms. Nothing here computes; nothing here imports torch or vllm."""

import warnings

import dagster as dg

# Backfill policies and part of Pipes are marked beta or preview in 1.13; a warning at each use tells nobody anything.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
