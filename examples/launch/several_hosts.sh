#!/usr/bin/env bash
# One run on several hosts. Start this file on every host with the same arguments, which are lm_eval's:
#
#   export NNODES=2 MASTER_ADDR=host0 PROCESSES=8            # on both; PROCESSES is that of one host
#   NODE_RANK=0 bash several_hosts.sh --model hf-eglr --model_args pretrained=...,rollouts=DIR --tasks ...
#   NODE_RANK=1 bash several_hosts.sh --model hf-eglr --model_args pretrained=...,rollouts=DIR --tasks ...
#
# Under Slurm, one task per node: srun --nodes=2 --ntasks-per-node=1 bash several_hosts.sh ...
# The table is printed on host 0. DIR may be on a shared file system; otherwise each host keeps its part,
# and the parts become one store when the files of `pools/` and the `plan.*.json` are put together.
set -euo pipefail

NNODES=${NNODES:-${SLURM_NNODES:?NNODES: number of hosts}}
NODE_RANK=${NODE_RANK:-${SLURM_NODEID:?NODE_RANK: number of this host, from 0}}
if [ -z "${MASTER_ADDR:-}" ]; then
    MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?MASTER_ADDR: name of host 0}" | head -n 1)
fi

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NNODES" --node-rank "$NODE_RANK" --nproc-per-node "${PROCESSES:-gpu}" \
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" \
    -m lm_eval "$@"
