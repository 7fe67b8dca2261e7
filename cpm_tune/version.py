"""The versions of this package and of what it computes, which a record names."""

VERSION = "0.1.0"

# Raised when a change of the package changes, on purpose, what the same run spec computes. Runs of
# other numbers are not resumed, and not in one column of the leaderboard.
NUMBERS = 1
