"""What every room may use: paths, sizes, folders that appear whole, signals, atomic files."""
