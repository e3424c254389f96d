"""Instruction synthesis: prompt format, chains, engine, parser and the pairs they give."""
