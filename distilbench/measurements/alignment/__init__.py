"""What a product or an attention takes by the size of one of its dimensions: aligned to blocks, and not."""
