"""The extras of the package: what each needs, and for what (docs/install.md)."""

from __future__ import annotations

# Extra of pyproject.toml -> (distribution, what it is for).
EXTRAS = {
    "int8": ("torchao", "--quantize int8"),
    "plot": ("matplotlib", "leaderboard plot"),
    "search": ("optuna", "search, and suites that search"),
    "serve": ("starlette", "leaderboard serve"),
    "ray": ("ray", "bench --executor ray"),
    "slurm": ("submitit", "bench --executor slurm"),
    "wandb": ("wandb", "--track wandb"),
    "mlflow": ("mlflow-skinny", "--track mlflow"),
    "docs": ("mkdocs-material", "make docs"),
    "bench": ("peft", "benchmarks/, which compare with PEFT"),
}
