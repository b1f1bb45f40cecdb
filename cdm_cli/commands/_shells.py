"""The parts of the completion scripts that do not depend on the commands."""

BASH = r"""{header}
_cdm_words() {{ COMPREPLY=($(compgen -W "$1" -- "$cur")); }}

_cdm_files() {{ compopt -o default 2>/dev/null; COMPREPLY=(); }}

_cdm_stages() {{
  local path names=$1
  for path in runs/*/stage.json; do
    [[ -e $path ]] && path=${{path%/stage.json}} && names+=" ${{path#runs/}}"
  done
  COMPREPLY=($(compgen -W "$names" -- "$cur") $(compgen -d -- "$cur"))
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
    _cdm_words '{commands} --quiet --verbose --debug --version --help'
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
  names=("$@" runs/*/stage.json(N:h:t))
  _alternative 'stages:stage:compadd -a names' 'directories:directory:_files -/'
}}

_cdm() {{
  local curcontext=$curcontext state line
  local -a commands
  commands=(
{commands}
  )
  _arguments -C \
    '(-q --quiet)'{{-q,--quiet}}'[Say nothing but errors]' \
    '(-v --verbose)'{{-v,--verbose}}'[Show warnings]' \
    '--debug[Show where an error arose]' \
    '--version[Print the version]' \
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
function __cdm_stages
  for path in runs/*/stage.json
    string replace -r 'runs/(.*)/stage.json' '$1' $path
  end
end

complete -c cdm -f
{lines}
"""
