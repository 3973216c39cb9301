#!/usr/bin/env bash
# IDK-IT on nodes with GPUs under Slurm, from the doctor to the trained model:
#
#   RUN=/scratch/run sbatch tpu/slurm.sh
#
# in a checkout with a .venv into which `pip install -e '.[cuda]'` has installed it; RUN is a folder that all nodes
# see. Slurm starts a process per GPU, which is how JAX divides them there; all GPUs of a node must be visible to each.
# The weights are split over the GPUs of a node, and each node has a copy: only gradients go over the network.
# Two minutes before the time ends, training saves its last finished step, and the job is queued again.
#SBATCH --job-name=inbol-sft
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=inbol-sft-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?is set by sbatch}"
export JAX_COMPILATION_CACHE_DIR=$RUN/programs

# A step does not take the job's --cpus-per-task over.
on_all() { srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" .venv/bin/python "$@"; }

on_all tpu/doctor.py --distributed --shared "$RUN" --processes "$SLURM_NTASKS"
code=0
on_all train.py sft --distributed \
  --data "$RUN/instructions.jsonl" --out "$RUN/idk_it" \
  --model llava-hf/llava-1.5-7b-hf --lora-rank 128 --remat full --mesh "$SLURM_NNODES" -1 1 || code=$?
if [ "$code" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
