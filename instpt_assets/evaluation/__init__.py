"""Evaluation: tasks for lm-eval, bits per byte, statistics over seeds, quality analyses, report and plots."""
