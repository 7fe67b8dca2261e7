"""`leaderboard serve`: the page live while runs go on, and uploaded predictions scored."""
