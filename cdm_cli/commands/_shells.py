"""The parts of the completion scripts that do not depend on the commands."""

CLASSES = (  # plain names alone; nothing of a stage.json is ever expanded by a shell
    r"""sed -n '/"classes": \[/,/\]/s/^ *"\([A-Za-z0-9_.+-]*\)",\{0,1\}$/\1/p'"""
)

BASH = r"""{header}
_cdm_words() {{ COMPREPLY=($(compgen -W "$1" -- "$cur")); }}

_cdm_files() {{ compopt -o default 2>/dev/null; COMPREPLY=(); }}

_cdm_stores() {{
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -X '!*.h5' -- "$cur"; compgen -d -- "$cur")
}}

_cdm_settings() {{ compopt -o nospace 2>/dev/null; _cdm_words "$1"; }}

# Names of files and classes may be a stranger's: they are compared and quoted, never expanded.
_cdm_among() {{
  local name start=$1
  shift
  for name in "$@"; do
    [[ $name == "$cur"* || $start$name == "$cur"* ]] && printf -v name '%s%q' "$start" "$name" &&
      COMPREPLY+=("$name")
  done
}}

_cdm_stages() {{
  local path names=($1) directories
  for path in "${{CDM_RUNS:-runs}}"/*/stage.json; do
    [[ -e $path ]] && path=${{path%/stage.json}} && names+=("${{path##*/}}")
  done
  mapfile -t directories < <(compgen -d -- "$cur")
  COMPREPLY=()
  _cdm_among '' "${{names[@]}}" "${{directories[@]}}"
}}

_cdm_homes() {{
  local word runs=${{CDM_RUNS:-runs}}
  homes=()
  for word in "${{COMP_WORDS[@]:2}}"; do
    [[ -n $word && -e $runs/$word/stage.json ]] && homes+=("$runs/$word")
  done
  ((${{#homes[@]}})) || homes=("$runs"/*)
}}

_cdm_checkpoints() {{
  local home path homes names=($1)
  _cdm_homes
  for home in "${{homes[@]}}"; do
    for path in "$home"/checkpoints/step-*/; do
      [[ -d $path ]] && path=${{path%/}} && names+=("${{path##*/}}")
    done
  done
  COMPREPLY=()
  _cdm_among '' "${{names[@]}}"
}}

_cdm_classes() {{
  local home homes names start=
  _cdm_homes
  for home in "${{homes[@]}}"; do
    [[ -f $home/stage.json ]] || continue
    mapfile -t -O "${{#names[@]}}" names < <({classes} "$home/stage.json")
  done
  [[ $cur == *,* ]] && start=${{cur%,*}},
  COMPREPLY=()
  _cdm_among "$start" "${{names[@]}}"
}}

_cdm() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
  local command= flags= valued= count=0 index word before=
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=${{COMP_WORDS[index]}}
    if [[ -z $command ]]; then
      [[ $word != -* ]] && command=$word && _cdm_valued
    elif [[ $word != -* && $valued != *" $before "* ]]; then
      count=$((count + 1))
      ((count == 1)) && _cdm_pair "$command $word"
    fi
    before=$word
  done
  if [[ -z $command ]]; then
    _cdm_words '{commands} --quiet --verbose --debug --version -V --help'
    return
  fi
  if [[ $valued == *" $prev "* ]]; then
    _cdm_value "$command $prev"
  elif [[ $cur == -* ]]; then
    _cdm_flags
    _cdm_words "$flags"
  else
    _cdm_value "$command $count"
  fi
}}

_cdm_pair() {{
  case $1 in
    {pairs}) command=$1 count=0; _cdm_valued ;;
  esac
}}

_cdm_flags() {{
  case $command in
{flags}
  esac
}}

_cdm_valued() {{
  case $command in
{valued}
  esac
}}

_cdm_value() {{
  case $1 in
{actions}
  esac
}}

complete -F _cdm cdm
"""

ZSH = r"""#compdef cdm
{header}
_cdm_stages() {{
  local -a names
  names=("$@" ${{CDM_RUNS:-runs}}/*/stage.json(N:h:t))
  _alternative 'stages:stage:compadd -a names' 'directories:directory:_files -/'
}}

_cdm_settings() {{ compadd -S '' -- "$@"; }}

_cdm_homes() {{
  local word runs=${{CDM_RUNS:-runs}}
  homes=()
  for word in $words; do
    [[ -e $runs/$word/stage.json ]] && homes+=($runs/$word)
  done
  (( $#homes )) || homes=($runs/*(N/))
}}

_cdm_checkpoints() {{
  local -a homes
  local -aU names
  _cdm_homes
  names=("$@" $^homes/checkpoints/step-*(N/:t))
  compadd -a names
}}

_cdm_classes() {{
  local -a homes
  local -aU names
  local file
  _cdm_homes
  for file in $^homes/stage.json(N.); do
    names+=("${{(@f)$({classes} $file)}}")
  done
  compset -P '*,'
  compadd -S '' -a names
}}

_cdm() {{
  local curcontext=$curcontext state line
  local -a commands
  commands=(
{commands}
  )
  _arguments -C \
    '(-q --quiet)'{{-q,--quiet}}'[Say nothing but errors]' \
    '(-v --verbose)'{{-v,--verbose}}'[Show all, and warnings]' \
    '--debug[Show where an error arose]' \
    '(-V --version)'{{-V,--version}}'[Print the version]' \
    '(-h --help)'{{-h,--help}}'[Show every command]' \
    '1:command:->command' \
    '*::argument:->arguments'
  case $state in
    command) _describe command commands ;;
    arguments)
      if (( CURRENT > 2 )); then
        case "$words[1] $words[2]" in
          {pairs}) words=("$words[1] $words[2]" "${{words[@]:2}}"); (( CURRENT-- )) ;;
        esac
      fi
      case $words[1] in
{cases}
      esac ;;
  esac
}}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _cdm "$@"
else
  compdef _cdm cdm
fi
"""

FISH = r"""{header}
function __cdm_runs
  set -q CDM_RUNS; and test -n "$CDM_RUNS"; and echo $CDM_RUNS; or echo runs
end

function __cdm_stages
  for path in (__cdm_runs)/*/stage.json
    path basename (path dirname $path)
  end
end

function __cdm_homes
  set -l runs (__cdm_runs)
  set -l homes
  for word in (commandline -opc)[2..]
    test -e $runs/$word/stage.json; and set -a homes $runs/$word
  end
  set -q homes[1]; or set homes $runs/*
  printf '%s\n' $homes
end

function __cdm_checkpoints
  for home in (__cdm_homes)
    for path in $home/checkpoints/step-*/
      path basename $path
    end
  end
end

function __cdm_classes
  set -l start (string match -r '^.*,' -- (commandline -ct))
  for path in (__cdm_homes)/stage.json
    test -f $path; or continue
    for name in ({classes} $path)
      echo "$start$name"
    end
  end
end

function __cdm_stores
  __fish_complete_suffix .h5 | string match -r '^[^\t]*(?:\.h5|/)(?:\t.*)?$'
end

complete -c cdm -f
complete -c cdm -n __fish_use_subcommand -s q -l quiet -d 'Say nothing but errors'
complete -c cdm -n __fish_use_subcommand -s v -l verbose -d 'Show all, and warnings'
complete -c cdm -n __fish_use_subcommand -l debug -d 'Show where an error arose'
complete -c cdm -n __fish_use_subcommand -s V -l version -d 'Print the version'
complete -c cdm -n __fish_use_subcommand -s h -l help -d 'Show every command'
{lines}
"""
