"""Instruction Pre-Training as Dagster assets."""
