"""One file per command: parse, call, print. Everything heavy is imported inside them."""

# Each command's function, imported when it is called.
COMMANDS = {
    "list": "cpm_tune.commands.inspect:list_",
    "show": "cpm_tune.commands.inspect:show",
    "doctor": "cpm_tune.commands.inspect:doctor",
    "generate": "cpm_tune.commands.generate:generate",
    "predict": "cpm_tune.commands.predict:predict",
    "score": "cpm_tune.commands.score:score",
    "rescore": "cpm_tune.commands.rescore:rescore",
    "export": "cpm_tune.commands.export:export",
    "bench": "cpm_tune.commands.bench:bench",
    "leaderboard": "cpm_tune.commands.leaderboard:leaderboard",
    "pretrain": "cpm_tune.commands.pretrain:pretrain",
}
