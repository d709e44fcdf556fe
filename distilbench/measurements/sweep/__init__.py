"""The sweep: forward passes over batch sizes and length policies, in three passes."""
