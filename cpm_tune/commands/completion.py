"""The command `completion`: a script for a shell, made from the options' declarations.

The script has all names in it, so that a shell completes without starting Python. shtab, a library
for this, has no fish and wants one parser for all commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

from cpm_tune.backbone.bundled import NAMES
from cpm_tune.commands.options.look import Completion
from cpm_tune.commands.table import COMMANDS, TUNE
from cpm_tune.common.option import Declared, declared
from cpm_tune.planning.settings import KEYS
from cpm_tune.task.registry import load_tasks, preset_files

PROGRAMS = ("cpm-tune", "tune.py")


def run(options: Completion) -> int:
    """Print the script."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell]())
    return 0


def _commands() -> Mapping[str, list[Declared]]:
    """The options of each command that the help has; of the one without a name by ""."""
    every = {"": TUNE} | COMMANDS
    return {
        name: [o for o in declared(command.options) if not (o.option.hidden or o.option.positional)]
        for name, command in every.items()
    }


def _named_values() -> dict[str, list[str]]:
    """The values of options that are names, by field."""
    tasks, presets = [task.name for task in load_tasks()], list(preset_files())
    return {
        **dict.fromkeys(("task", "tasks"), tasks),
        **dict.fromkeys(("delta", "deltas"), presets),
        **{field: list(NAMES) for field in ("backbone", "backbones")},
        "settings": [f"{key}=" for key in sorted(KEYS)],
    }


def _takes_file(option: Declared) -> bool:
    about = option.option.metavar
    return option.kind is Path or any(word in about for word in ("DIR", "FILE", "PATH"))


def _parts() -> dict[str, list[str]]:
    """The first words of commands, and the second ones of each."""
    parts: dict[str, list[str]] = {}
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        parts.setdefault(first, [])
        if second:
            parts[first].append(second)
    return parts


def _bash() -> str:
    values = _named_values()
    names, cases = [], []
    for command, options in _commands().items():
        words = " ".join(option.name for option in options)
        names.append(f"    {quote(command)}) options={quote(words + ' --help')} ;;")
        for option in options:
            known = [*map(str, option.choices), *values.get(option.field, ())]
            if option.kind is bool:
                continue
            how = f"words={quote(' '.join(known))}" if known else "words="
            then = "; files=1" if _takes_file(option) else ""
            cases.append(f"    {quote(f'{command} {option.name}')}) {how}{then} ;;")
    seconds = [
        f"    {first}) words={quote(' '.join(parts))} ;;"
        for first, parts in _parts().items()
        if parts
    ]
    pairs = " | ".join(quote(name) for name in COMMANDS if " " in name)
    return f"""# bash completion of cpm-tune
_cpm_tune() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" words="" options="" files="" found=1
  [[ $command == -* || $COMP_CWORD -eq 1 ]] && command=""
  case "$command ${{COMP_WORDS[2]}}" in
    {pairs}) [[ $COMP_CWORD -gt 2 ]] && command="$command ${{COMP_WORDS[2]}}" ;;
  esac
  case "$command" in
{chr(10).join(names)}
  esac
  case "$command $prev" in
{chr(10).join(cases)}
    *) found="" ;;
  esac
  if [[ -z $found ]]; then
    if [[ $cur == -* ]]; then
      words="$options"
    elif [[ $COMP_CWORD -eq 1 ]]; then
      words={quote(" ".join(_parts()))}
    else
      files=1
      [[ $COMP_CWORD -eq 2 ]] && case "$command" in
{chr(10).join(seconds)}
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [[ $files && ${{#COMPREPLY[@]}} -eq 0 ]] && COMPREPLY=($(compgen -f -- "$cur"))
  [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}}
complete -o filenames -F _cpm_tune {" ".join(PROGRAMS)}"""


def _zsh() -> str:
    return (
        "# zsh completion of cpm-tune, by zsh's reading of bash's\n"
        "(( $+functions[compdef] )) || { autoload -U compinit && compinit; }\n"
        f"autoload -U +X bashcompinit && bashcompinit\n{_bash()}"
    )


def _fish() -> str:
    return "\n".join(["# fish completion of cpm-tune", *_fish_lines()])


def _fish_lines() -> Iterator[str]:
    values, parts = _named_values(), _parts()
    firsts = " ".join(parts)
    for program in PROGRAMS:
        start = f"complete -c {program}"
        for first in parts:
            about = quote(COMMANDS[first].summary)
            yield f"{start} -n __fish_use_subcommand -f -a {first} -d {about}"
            for second in parts[first]:
                about = quote(COMMANDS[f"{first} {second}"].summary)
                when = quote(f"__fish_seen_subcommand_from {first}")
                yield f"{start} -n {when} -f -a {second} -d {about}"
        for command, options in _commands().items():
            words = command.split()
            seen = [f"__fish_seen_subcommand_from {word}" for word in words]
            others = [] if len(words) == 2 else parts.get(command, [])
            seen += [f"not __fish_seen_subcommand_from {' '.join(others)}"] if others else []
            when = quote("; and ".join(seen) or f"not __fish_seen_subcommand_from {firsts}")
            for option in options:
                known = [*map(str, option.choices), *values.get(option.field, ())]
                takes = "" if option.kind is bool else " -r" if _takes_file(option) else " -x"
                given = f" -a {quote(' '.join(known))}" if known else ""
                about = quote(option.option.help.replace("\n", " "))
                yield f"{start} -n {when} -l {option.name[2:]}{takes}{given} -d {about}"
