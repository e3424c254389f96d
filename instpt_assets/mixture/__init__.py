"""From texts to training sequences: tokenizer, tokenized shards, mixtures and packing."""
