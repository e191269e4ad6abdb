# Completion of tele's command lines for fish; tele completion fish prints it.

function __tele_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    set -l answer ($program __complete $words $last 2>/dev/null)
    # In --name=PATH, fish takes the whole word.
    set -l path (string replace -r '^--[a-z-]+=' '' -- $last)
    set -l flag (string replace -r '^(--[a-z-]+=)?.*' '$1' -- $last)
    switch "$answer[1]"
        case words
            printf '%s\n' $answer[2..-1]
        case files
            __fish_complete_path $path | string replace -r '^' -- $flag
        case commands
            __fish_complete_command
        case dirs
            __fish_complete_directories $path | string replace -r '^' -- $flag
    end
end

for program in tele telerun teleworker
    complete -c $program -f -a '(__tele_complete)'
end
