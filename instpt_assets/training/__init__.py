"""Building models and training them: one loop tunes the synthesizer, pre-trains the arms and instruction-tunes them."""
