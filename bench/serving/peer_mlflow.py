# SPDX-License-Identifier: Apache-2.0
"""peer_mlflow.py FOLDER PORT: saves the model as MLflow does, and serves it with one worker."""
import os
import shutil
import sys

import mlflow.onnx
import onnx

folder, port = sys.argv[1:3]
shutil.rmtree(folder, ignore_errors=True)
mlflow.onnx.save_model(onnx.load(os.environ["BENCH_MODEL"]), folder,
                       onnx_execution_providers=["CPUExecutionProvider"],
                       onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1})
os.execv(sys.executable, [sys.executable, "-m", "mlflow", "models", "serve", "-m", folder, "-h",
                          "127.0.0.1", "-p", port, "--workers", "1", "--env-manager", "local"])
