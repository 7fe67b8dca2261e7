"""What a run is (its specification, hashed) and what it leaves (its record, versioned)."""
