#!/bin/sh
# What became of a job of Grid Engine's, in the word that Snakemake wants: running, success or failed.
if qstat -j "$1" >/dev/null 2>&1; then
  echo running
elif qacct -j "$1" 2>/dev/null | grep -Eq '^exit_status +0 *$'; then
  echo success
else
  echo failed
fi
