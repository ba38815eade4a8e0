"""How a causal LM of transformers is run: row by row, and its top layers again."""
