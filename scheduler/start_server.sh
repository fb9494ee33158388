#!/usr/bin/env bash
# start_server.sh - starts the server that the `vllm` row of llmsched bench measures.
#
# `vllm serve` where vLLM is installed, else `llmsched serve`; waits until it answers, and ends it on
# Ctrl-C. --help says the rest.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scheduler/env_file.sh
source "$root/scheduler/env_file.sh"

usage() {
    cat <<'END'
Usage: scheduler/start_server.sh [ARGUMENTS OF THE SERVER]

Starts `vllm serve` where vllm is on the PATH, else `llmsched serve`, with the settings of .env
(the current folder's, else the repository's) and of the environment, which comes first:

  LLM_MODEL        the model (default: SmolLM2-135M-Instruct); or --model M
  VLLM_HOST        where to listen (default: 127.0.0.1);       or --host H
  VLLM_PORT        default: 8000;                              or --port P
  GPU_MEMORY_UTIL  vLLM's share of the GPU's memory, 0 to 1 (default: vLLM's)

All other arguments are passed on. Examples:
  scheduler/start_server.sh
  scheduler/start_server.sh --port 8100 --max-model-len 2048
  LLM_MODEL=TinyLlama/TinyLlama-1.1B-Chat-v1.0 scheduler/start_server.sh --dtype float16
END
}

say() { echo "start_server: $*" >&2; }
die() {
    local code=$1
    shift
    say "$*"
    exit "$code"
}

# Takes --model, --host and --port out of the arguments, in both spellings.
passed_on=()
flag_model="" flag_host="" flag_port=""
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    --model | --host | --port)
        [ $# -ge 2 ] || die 2 "$1 needs a value"
        declare "flag_${1#--}=$2"
        shift
        ;;
    --model=* | --host=* | --port=*)
        name=${1%%=*}
        declare "flag_${name#--}=${1#*=}"
        ;;
    *) passed_on+=("$1") ;;
    esac
    shift
done

env_file=
for candidate in .env "$root/.env"; do
    if [ -f "$candidate" ]; then
        env_file=$(cd "$(dirname "$candidate")" && pwd)/.env
        env_file_apply "$env_file" || exit 3
        break
    fi
done
model=${flag_model:-${LLM_MODEL:-}}
host=${flag_host:-${VLLM_HOST:-127.0.0.1}}
port=${flag_port:-${VLLM_PORT:-8000}}
share=${GPU_MEMORY_UTIL:-}
[[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] ||
    die 2 "VLLM_PORT is \"$port\"; a port is a number from 1 to 65535"
[[ -z $share || $share =~ ^(0?\.[0-9]+|1|1\.0+)$ ]] ||
    die 2 "GPU_MEMORY_UTIL is \"$share\"; it is a share above 0 and up to 1, such as 0.9"
case $host in
0.0.0.0) reach=127.0.0.1 ;;
:: | '[::]') reach=::1 ;;
*) reach=$host ;;
esac
url=http://$reach:$port
case $reach in *:*) url="http://[$reach]:$port" ;; esac

# Whether /health answers 200.
is_healthy() (
    exec 2>/dev/null 3<>"/dev/tcp/$reach/$port" || exit 1
    printf 'GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$reach" >&3
    read -r -t 5 line <&3 && [[ $line == HTTP/1.?\ 200* ]]
)

if command -v vllm >/dev/null; then
    server="vllm serve ($(command -v vllm))"
    # vLLM has no built-in model; this is the same one as ours, from the hub.
    model=${model:-HuggingFaceTB/SmolLM2-135M-Instruct}
    command=(vllm serve "$model" --host "$host" --port "$port")
    if [ -n "$share" ]; then command+=(--gpu-memory-utilization "$share"); fi
else
    llmsched=${LLMSCHED_BIN:-$root/build/llmsched}
    server="llmsched serve ($llmsched; vllm is not on the PATH)"
    [ -x "$llmsched" ] || make --no-print-directory -C "$root" build >&2
    model=${model:-SmolLM2-135M-Instruct}
    if [ "$model" = SmolLM2-135M-Instruct ]; then make --no-print-directory -C "$root" model >&2; fi
    command=("$llmsched" serve --host "$host" --port "$port" --model)
    # llmsched looks into models/ of the current folder; this works from any.
    if [ ! -e "$model" ] && [ -e "$root/models/$model" ]; then
        command+=("$root/models/$model" --served-model-name "$model")
    else
        command+=("$model")
    fi
fi
command+=("${passed_on[@]}")

gpus=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null) || gpus=
say "server           $server"
say "settings from    ${env_file:-the environment (no .env; .env.example is one)}"
say "LLM_MODEL        $model"
say "VLLM_HOST        $host"
say "VLLM_PORT        $port"
say "GPU_MEMORY_UTIL  ${share:-not set}"
say "CUDA             ${gpus:-none: nvidia-smi finds no GPU}"
if [[ -n ${VLLM_ENDPOINT:-} && $VLLM_ENDPOINT/ != *":$port/"* ]]; then
    say "VLLM_ENDPOINT    $VLLM_ENDPOINT - the vllm row will look there, not here"
fi
if is_healthy; then
    die 1 "a server answers at $url already; end it, or choose another VLLM_PORT"
fi
say "starting         ${command[*]}"

child=
stop_signal=
# shellcheck disable=SC2317 # called by the traps
on_signal() {
    if [ -n "$stop_signal" ]; then
        say "once more: ending it at once"
        kill -KILL -- "-$child" 2>/dev/null || true
        return
    fi
    stop_signal=$1
    say "ending the server"
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; fi
}
trap 'on_signal 130' INT
trap 'on_signal 143' TERM HUP

# A process group of its own, so that nothing of it is left behind at the end. vLLM takes VLLM_PORT
# for the first of its internal ports, and would occupy the very port that it is to serve on.
set -m
env -u VLLM_PORT -u VLLM_HOST -u VLLM_ENDPOINT "${command[@]}" </dev/null &
child=$!
set +m
if [ -n "$stop_signal" ]; then kill -TERM "$child" 2>/dev/null || true; fi

begin=$SECONDS
last=$begin
until [ -n "$stop_signal" ] || ! kill -0 "$child" 2>/dev/null || is_healthy; do
    sleep 0.3
    if [ $((SECONDS - last)) -ge 10 ]; then
        last=$SECONDS
        say "waiting for $url/health: $((SECONDS - begin)) s"
    fi
done
if [ -z "$stop_signal" ] && kill -0 "$child" 2>/dev/null; then
    say "ready after $((SECONDS - begin)) s: $url/v1/completions"
    say "measure it:  llmsched bench --schedulers continuous vllm --endpoint $url/v1/completions"
fi

# wait comes back with the child's end or with a signal.
code=0
wait "$child" || code=$?
for ((i = 0; i < 400; i++)); do # two minutes for requests that are running
    kill -0 "$child" 2>/dev/null || break
    sleep 0.3
done
kill -KILL -- "-$child" 2>/dev/null || true
if [ -n "$stop_signal" ]; then exit "$stop_signal"; fi
say "the server ended by itself with exit code $code"
exit "$code"
