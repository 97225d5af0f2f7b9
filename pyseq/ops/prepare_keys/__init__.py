"""Keys normalised and rotated once, for a cache."""
