"""cpm-tune: delta tuning of CPM-Ant on the Chinese CUGE benchmark, with comparable results."""

__version__ = "0.1.0"
