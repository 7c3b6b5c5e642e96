"""Other places that curves go to, through accelerate's trackers: one file each. Events come in, nothing comes out."""
