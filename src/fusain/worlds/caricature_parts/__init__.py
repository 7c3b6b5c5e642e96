"""The drawing of faces by subject: curves and shapes, the parts of a head, styles, captions and faults."""
