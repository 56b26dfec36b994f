#!/bin/sh
# A society on all machines of a job, without dask: `sbatch examples/cluster/srun.sh`, in the clone.
# The script runs on the first of them, and a node on each. Change what the job needs.
#SBATCH --job-name=painters
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=00:10:00
#SBATCH --signal=B:TERM@30
. .venv/bin/activate
port=$((20000 + SLURM_JOB_ID % 10000))
key=$HOME/.creamas/$SLURM_JOB_ID.key
mkdir -p -m 700 "$HOME/.creamas"
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$key")

# A node tries for a minute to join, so it may start before the script listens.
srun creamas-supervisor node --join "$(hostname):$port" --key-file "$key" &
nodes=$!
python -m examples.cluster.srun "$key" "$port" "$SLURM_JOB_NUM_NODES" &
script=$!
trap 'kill -TERM $script' TERM  # when the time is nearly up: the simulation is closed
wait $script
status=$?
wait $script 2> /dev/null  # after TERM the first wait is over at once
[ $status = 0 ] && wait $nodes
rm -f "$key"
exit $status
