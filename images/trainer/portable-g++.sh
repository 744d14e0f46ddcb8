#!/bin/bash
# g++ for processors since Haswell and Zen (x86-64-v3: AVX2, FMA), whatever the one that compiles can do.
arguments=()
for argument in "$@"; do
    case $argument in
    -march=native) argument=-march=x86-64-v3 ;;
    -D__AVX512__) argument=-D__AVX256__ ;;
    esac
    arguments+=("$argument")
done
exec g++ "${arguments[@]}"
