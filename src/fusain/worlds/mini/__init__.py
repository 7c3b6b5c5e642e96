"""The miniature bases and how each was trained."""
