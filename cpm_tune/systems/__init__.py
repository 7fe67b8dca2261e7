"""Other systems' predictions: read, scored, recorded beside the runs."""
