# Completion of tele's command lines for bash 4.1 and later; tele completion bash prints it.

_tele() {
    # Bash parts words at = and :, too. What stands together on the line is one word for tele.
    local line=${COMP_LINE:0:COMP_POINT} words=() word rest i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        rest=${line#"${line%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$rest
        if [[ ${#words[@]} -gt 0 && $rest == "$line" ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        line=${rest#"$word"}
    done
    local last=${words[${#words[@]} - 1]} answer
    mapfile -t answer < <("${COMP_WORDS[0]/#\~/$HOME}" __complete "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    case ${answer[0]-} in
    words)
        compopt -o nosort 2>/dev/null # since bash 4.4: jobs are in order, the newest first
        # Bash replaces only what comes after the last = or :
        local parted=${last%"${last##*[=:]}"}
        for word in "${answer[@]:1}"; do
            word=${word%%$'\t'*}
            COMPREPLY+=("${word#"$parted"}")
        done
        ;;
    files) compopt -o default ;;
    dirs) compopt -o dirnames ;;
    commands)
        mapfile -t COMPREPLY < <(compgen -c -- "$last" | sort -u)
        compopt -o default
        ;;
    esac
}
complete -F _tele tele telerun teleworker
