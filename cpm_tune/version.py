"""The version of this package, which a record names."""

VERSION = "0.1.0"
