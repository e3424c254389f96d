"""What comes out (recipe, hashed into identities) and how it is computed (execution, never hashed)."""
