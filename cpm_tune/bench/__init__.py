"""Many runs: a suite becomes trials, which are skipped, resumed or run, and reported."""
