/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir probe`: what runs in the child that opens a model file (registry/score.h starts it).
 *
 *   probe --model F --platform P                       platform, inputs, outputs, load_ms,
 *                                                      rss_bytes, about{} of a tree ensemble
 *   probe --model F --platform P --rows IN --out OUT   runs the rows of IN; latency in the answer
 *   probe --convert F --out OUT                        XGBoost to ONNX
 *   probe --pack FOLDER --out OUT                      a process model to its artifact
 *   probe --remote F --out OUT                         a remote model to its artifact
 *
 * P may be "auto": weir_trees for a tree ensemble, else onnxruntime_onnx.
 * Prints one JSON object; a refusal is {"error":{"code","message"}} and exit status 1. IN is a
 * rowfile whose text is {"columns":[{"input","element","texts":[]}],"latency_rows":n}: columns with
 * texts hold indexes into them. OUT has a column for each element of each output, texts alike.
 */
#pragma once

int probe_main(int argc, char **argv);
