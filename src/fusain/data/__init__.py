"""From files to batches: sources, captions, images, the held-out split, the order of draws."""
