#!/usr/bin/env bash
# Check the product on a CUDA GPU, then measure it:  bash benchmarks/gpu.sh [OUT]
# Then NVIDIA's MPS is started where it can be, through which the processes of later commands share the card. Exit code: failures of the check.
set -u
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
mkdir -p "$out"
export PYTHONPATH=.:${PYTHONPATH:-} PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} MPLBACKEND=Agg
python=${PYTHON:-python3}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
timeout "${CHECK_SECONDS:-200}" "$python" benchmarks/gpu_check.py --device cuda --out "$out" >"$out/gpu_check.log" 2>&1
failures=$?
grep -E "^(FAIL|      [a-z_]+: |[0-9]+ passed|No CUDA graph)" "$out/gpu_check.log" | tail -60
[ "$failures" -le 100 ] && grep -q " passed, " "$out/gpu_check.log" || tail -25 "$out/gpu_check.log"  # it broke off
timeout "${SPEED_SECONDS:-150}" "$python" benchmarks/gpu_speed.py --device cuda --out "$out" --seconds "${MEASURE_SECONDS:-90}" --profile 2>&1 |
  tee "$out/gpu_speed.log"
if command -v nvidia-cuda-mps-control >/dev/null && timeout 20 nvidia-cuda-mps-control -d; then
  # a server that cannot serve (a container without the right) would keep the card from every program
  if timeout 60 "$python" -c "import torch; print('MPS serves', torch.ones(2, device='cuda').sum().item())"; then
    echo "MPS: started; for its end: echo quit | nvidia-cuda-mps-control"
  else
    echo quit | timeout 20 nvidia-cuda-mps-control
    echo "MPS: does not serve here; processes take turns"
  fi
else
  echo "MPS: not here, or running already"
fi
exit $failures
