"""One file per command: parse, call, print. Everything heavy is imported inside them."""

# Each command's function, imported when it is called.
COMMANDS = {
    "list": "cpm_tune.commands.inspect:list_",
    "show": "cpm_tune.commands.inspect:show",
    "doctor": "cpm_tune.commands.inspect:doctor",
    "estimate": "cpm_tune.commands.estimate:estimate",
    "generate": "cpm_tune.commands.generate:generate",
    "predict": "cpm_tune.commands.predict:predict",
    "score": "cpm_tune.commands.score:score",
    "rescore": "cpm_tune.commands.rescore:rescore",
    "export": "cpm_tune.commands.export:export",
    "convert": "cpm_tune.commands.convert:convert",
    "prune": "cpm_tune.commands.prune:prune",
    "bench": "cpm_tune.commands.bench:bench",
    "leaderboard": "cpm_tune.commands.leaderboard:leaderboard",
    "pretrain": "cpm_tune.commands.pretrain:pretrain",
}
