"""Other systems' predictions: read, scored, and recorded next to the runs."""
