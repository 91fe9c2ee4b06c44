//! The scripts, one for each shell: they hand over what is typed and show what comes back.

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command};

/// The flags of `dhow completion`.
pub(crate) fn completion_args(command: Command) -> Command {
    command
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(PossibleValuesParser::new(["bash", "fish", "zsh"]))
                .help("The shell that the script is for"),
        )
        .after_help(
            "For this shell alone: source <(dhow completion bash), or zsh; dhow completion fish | source",
        )
}

/// The script of a shell.
pub(super) fn script(shell: &str) -> &'static str {
    match shell {
        "fish" => FISH,
        "zsh" => ZSH,
        _ => BASH,
    }
}

const BASH: &str = r#"# bash completion for dhow
_dhow() {
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words current typed kind word answer
    # Split as the shell does it, and not at each : and =, as COMP_WORDS is.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] || ${#words[@]} -lt 2 ]] && words+=("")
    current=${words[${#words[@]}-1]}
    COMPREPLY=()
    mapfile -t answer < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)
    kind=${answer[0]-}
    # Only what follows the last : or = is replaced.
    typed=
    [[ $current == *[:=]* ]] && typed=${current%"${current##*[:=]}"}
    for word in "${answer[@]:1}"; do
        word=${word%%$'\t'*}
        COMPREPLY+=("${word#"$typed"}")
    done
    case $kind in
    files | both)
        compopt -o filenames 2>/dev/null
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "${current#"$typed"}")
        ;;
    esac
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _dhow dhow
"#;

const ZSH: &str = r#"#compdef dhow
# zsh completion for dhow
_dhow() {
    local -a answer shown open
    local kind line word
    answer=("${(@f)$(${(Q)words[1]} __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    kind=${answer[1]}
    for line in "${(@)answer[2,-1]}"; do
        [[ -n $line ]] || continue
        word=${line%%$'\t'*}
        # After web: a path goes on.
        if [[ $word == *: ]]; then
            open+=("${word//:/\\:}:${line#*$'\t'}")
        else
            shown+=("${word//:/\\:}:${line#*$'\t'}")
        fi
    done
    (( ${#shown} )) && _describe 'dhow' shown
    (( ${#open} )) && _describe 'dhow' open -S ''
    [[ $kind == files || $kind == both ]] && _files
    return 0
}
if [[ ${funcstack[1]-} == _dhow ]]; then
    _dhow "$@"
else
    compdef _dhow dhow
fi
"#;

const FISH: &str = r#"# fish completion for dhow
function __dhow_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test (count $current) -eq 0; and set current ''
    set -l answer ($words[1] __complete $words[2..-1] $current 2>/dev/null)
    test (count $answer) -gt 1; and printf '%s\n' $answer[2..-1]
    if contains -- "$answer[1]" files both
        __fish_complete_path $current
    end
end
complete -c dhow -f -a '(__dhow_complete)'
"#;
