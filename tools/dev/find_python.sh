#!/bin/sh
# Print the path of a Python that can make the environment, or say what every candidate lacks.
# PYTHON=<command> names the only candidate. Else: the .venv that is there, then the usual names.
# Each one is run, since a name on the PATH (a pyenv shim, for one) need not be able to.

probe='
import os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if version not in ("3.10", "3.11", "3.12"):
    sys.exit("is Python %s; 3.10, 3.11 or 3.12 is needed" % version)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("has no venv module (on Debian and Ubuntu: apt install python%s-venv)" % version)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("has no C headers (on Debian and Ubuntu: apt install python%s-dev)" % version)
print(sys.executable)
'

if [ -n "$PYTHON" ]; then
    set -- "$PYTHON"
else
    set -- .venv/bin/python python3.11 python3.12 python3.10 python3
fi

complaints=''
for candidate in "$@"; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if answer=$("$candidate" -c "$probe" 2>&1); then
        printf '%s\n' "$answer"
        exit 0
    fi
    complaints="$complaints
  $candidate $(printf '%s' "$answer" | head -n 1)"
done

{
    echo "No usable Python among: $*$complaints"
    echo 'Install Python 3.11 with its headers and its venv module, or name one:'
    echo '  make install PYTHON=/path/to/python3.11'
} >&2
exit 1
