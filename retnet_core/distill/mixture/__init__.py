"""Conversations to train the generator on, in the product's own prompt, drawn while it trains."""
