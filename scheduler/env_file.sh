# shellcheck shell=bash disable=SC2094 # the file's name in messages is no second reading of it
# env_file.sh - reads a .env as llmsched does (src/base/dotenv.h, src/cli/env_file.c); to be sourced.
#
#   env_file_apply FILE   exports its variables of ours that are not set; 1 and a message on a fault
#
# The file is read as text, never run: nothing in it is substituted or executed.

env_file_prefixes=(LLM_ LLMSCHED_ VLLM_ GPU_MEMORY_UTIL OPENAI_ HF_ HUGGINGFACE_ TRANSFORMERS_)

env_file_fault() {
    echo "$1 line $2: $3" >&2
    return 1
}

# Sets env_file_value from what stands behind "NAME="; $1 FILE, $2 line number, $3 that text.
env_file_take_value() {
    local text=${3#"${3%%[! $'\t']*}"} rest i c next
    local quoted=$'^"((\\\\.|[^"\\\\])*)"[ \t]*(#.*)?$'
    env_file_value=
    case $text in
    \'*)
        text=${text#\'}
        [[ $text == *\'* ]] || { env_file_fault "$1" "$2" "no closing quote on this line"; return; }
        env_file_value=${text%%\'*}
        [[ ${text#*\'} =~ ^[$' \t']*(#.*)?$ ]] ||
            { env_file_fault "$1" "$2" "text behind the closing quote, or none"; return; }
        ;;
    \"*)
        [[ $text =~ $quoted ]] ||
            { env_file_fault "$1" "$2" "no closing quote, or text behind it"; return; }
        text=${BASH_REMATCH[1]}
        for ((i = 0; i < ${#text}; i++)); do
            c=${text:i:1}
            next=${text:i+1:1}
            if [ "$c" = \\ ]; then
                case $next in
                n) c=$'\n' i=$((i + 1)) ;;
                r) c=$'\r' i=$((i + 1)) ;;
                t) c=$'\t' i=$((i + 1)) ;;
                \\ | \" | \$) c=$next i=$((i + 1)) ;;
                esac
            fi
            env_file_value+=$c
        done
        ;;
    *)
        rest="=$3"
        rest=${rest%%[ $'\t']#*} # a comment
        rest=${rest#=}
        rest=${rest#"${rest%%[! $'\t']*}"}
        env_file_value=${rest%"${rest##*[! $'\t']}"}
        ;;
    esac
}

env_file_apply() {
    local LC_ALL=C file=$1 line number=0 name prefix
    local -A values=()
    local bytes
    bytes=$(wc -c <"$file")
    if [ "$bytes" -gt 65536 ]; then
        echo "$file: $bytes bytes, more than the limit of 65536" >&2
        return 1
    fi
    if [ "$(tr -d '\0' <"$file" | wc -c)" -ne "$bytes" ]; then
        echo "$file: a control character; this is not a text file of NAME=VALUE lines" >&2
        return 1
    fi
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        if [ "$number" -eq 1 ]; then line=${line#$'\xEF\xBB\xBF'}; fi
        line=${line%$'\r'}
        if [[ ${line//$'\t'/} == *[[:cntrl:]]* ]]; then
            env_file_fault "$file" "$number" "a control character" || return
        fi
        [[ $line =~ ^[$' \t']*(#.*)?$ ]] && continue
        if [[ $line =~ ^[$' \t']*export[$' \t']+([^$' \t='].*)$ ]]; then
            line=${BASH_REMATCH[1]}
        fi
        if [[ ! $line =~ ^[$' \t']*([A-Za-z_][A-Za-z0-9_]*)[$' \t']*=(.*)$ ]]; then
            env_file_fault "$file" "$number" "NAME=VALUE was expected" || return
        fi
        name=${BASH_REMATCH[1]}
        env_file_take_value "$file" "$number" "${BASH_REMATCH[2]}" || return
        values[$name]=$env_file_value
        if [ ${#values[@]} -gt 256 ]; then
            env_file_fault "$file" "$number" "more variables than the limit of 256" || return
        fi
    done <"$file"
    for name in "${!values[@]}"; do
        for prefix in "${env_file_prefixes[@]}"; do
            if [[ $name == "$prefix"* && -z ${!name+set} ]]; then
                export "$name=${values[$name]}"
            fi
        done
    done
}
