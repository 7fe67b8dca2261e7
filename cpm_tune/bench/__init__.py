"""Many runs: a suite becomes cells; cells are skipped, resumed, carried out and reported."""
