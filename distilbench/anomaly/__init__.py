"""Batch sizes on trial: which deviate from linear scaling, and which operators account for it."""
