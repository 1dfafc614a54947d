#!/bin/sh
# pythons.sh - prints every CPython from 3.9 on that PATH or pyenv has, each once.
{
    command -v python3
    for minor in 9 10 11 12 13 14; do
        command -v "python3.$minor"
        ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python
    done
    echo /usr/bin/python3
} 2>/dev/null | while read -r python; do
    "$python" -c 'import os, sys
good = sys.implementation.name == "cpython" and sys.version_info >= (3, 9)
print(os.path.realpath(sys.executable) if good else "")' 2>/dev/null
done | grep . | sort -u
