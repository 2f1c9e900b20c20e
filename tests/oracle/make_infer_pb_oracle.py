#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/oracle/data/infer_pb.txt: messages as the protobuf library serialises them, by the
message classes of tritonclient. A line is a name and the bytes in hexadecimal.

tests/unit/wire/test_infer_pb.c reads it: requests must give these tensors, answers these bytes. Run
again only when a message is added.
"""

import pathlib
import struct

from tritonclient.grpc import model_config_pb2, service_pb2 as pb

lines = []


def case(name, message):
    lines.append(f"{name} {message.SerializeToString(deterministic=True).hex() or '-'}")


def request(*inputs, raw=(), **fields):
    message = pb.ModelInferRequest(model_name="m", **fields)
    for name, datatype, shape, contents in inputs:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        for field, values in contents.items():
            getattr(tensor.contents, field).extend(values)
    message.raw_input_contents.extend(raw)
    return message


def answer(raw=(), contents=None):
    message = pb.ModelInferResponse(model_name="fraud", model_version="3", id="r1")
    contents = contents or {}
    for name, datatype, shape in (("y", "FP32", [2, 2]), ("label", "INT64", [2]), ("text", "BYTES", [2])):
        tensor = message.outputs.add(name=name, datatype=datatype, shape=shape)
        for field, values in contents.get(name, {}).items():
            getattr(tensor.contents, field).extend(values)
    message.raw_output_contents.extend(raw)
    return message


def texts(*values):
    return b"".join(struct.pack("<I", len(v)) + v for v in values)


case("raw", request(("x", "FP32", [1, 3], {}), raw=[struct.pack("<3f", 1, -25, 3)],
                    model_version="7", id="r1"))
case("raw_texts", request(("t", "BYTES", [3], {}), raw=[texts(b"plain", b"", b"a\0b\xff")]))
case("raw_half", request(("h", "FP16", [2], {}), raw=[struct.pack("<2e", 1.5, -2)]))
case("raw_two", request(("i8", "INT8", [2], {}), ("b", "BOOL", [2], {}), raw=[b"\x80\x7f", b"\1\0"]))
case("fp32", request(("x", "FP32", [2, 3], {"fp32_contents": [1, 2, 3, 4, 5, 6.5]})))
case("fp64", request(("d", "FP64", [2], {"fp64_contents": [0.1, -1e300]})))
case("int8", request(("i8", "INT8", [3], {"int_contents": [-128, 127, 0]})))
case("int8_range", request(("i8", "INT8", [2], {"int_contents": [5, 128]})))
case("uint64", request(("u64", "UINT64", [2], {"uint64_contents": [2**64 - 1, 0]})))
case("int64", request(("i64", "INT64", [2], {"int64_contents": [2**63 - 1, -(2**63)]})))
case("int32", request(("cube", "INT32", [1, 2, 2], {"int_contents": [-(2**31), 2**31 - 1, -1, 1]})))
case("bool", request(("b", "BOOL", [2], {"bool_contents": [True, False]})))
case("bytes", request(("t", "BYTES", [3], {"bytes_contents": [b"plain", b"", b"\xff\0"]})))
case("mixed", request(("x", "FP32", [1, 3], {"fp32_contents": [1, 2, 3]}), raw=[b"\0" * 12]))
case("wrong_field", request(("x", "FP32", [1, 3], {"fp64_contents": [1, 2, 3]})))
case("scalar", request(("s", "FP32", [], {"fp32_contents": [4]})))
case("empty", request(("x", "FP32", [0, 3], {})))

full = request(("x", "FP32", [1, 3], {"fp32_contents": [1, 2, 3]}), id="é")
full.parameters["flag"].bool_param = True
full.parameters["priority"].int64_param = -3
full.parameters["name"].string_param = 'say "hi"\n'
full.parameters["ratio"].double_param = 0.25
full.parameters["big"].uint64_param = 2**64 - 1
full.outputs.add(name="label")
full.outputs.add(name="y").parameters["classification"].int64_param = 1
case("full", full)

Y, LABEL, TEXT = [0.25, 0.75, 0.5, -1], [1, -2], [b"a", b"longer text"]
case("answer_raw", answer([struct.pack("<4f", *Y), struct.pack("<2q", *LABEL), texts(*TEXT)]))
case("answer_typed", answer(contents={"y": {"fp32_contents": Y}, "label": {"int64_contents": LABEL},
                                      "text": {"bytes_contents": TEXT}}))
classes = pb.ModelInferResponse(model_name="fraud", model_version="3")
best = classes.outputs.add(name="y", datatype="BYTES", shape=[2, 1])
best.contents.bytes_contents.extend([b"0.75:1", b"0.5:0"])
classes.parameters["k"].double_param = 0.5
case("answer_classes", classes)
stream = pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(model_name="m"))
case("stream_answer", stream)
case("stream_error", pb.ModelStreamInferResponse(error_message="no such model"))

case("live", pb.ServerLiveResponse(live=True))
case("not_ready", pb.ModelReadyResponse(ready=False))
case("server", pb.ServerMetadataResponse(name="weir", version="0.1",
                                         extensions=["statistics", "binary_tensor_data"]))
metadata = pb.ModelMetadataResponse(name="m", versions=["1", "2"], platform="onnx")
metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
metadata.outputs.add(name="s", datatype="BYTES", shape=[])
case("metadata", metadata)
config = pb.ModelConfigResponse(config=model_config_pb2.ModelConfig(
    name="m", platform="onnx", backend="onnxruntime", max_batch_size=8))
config.config.input.add(name="x", data_type="TYPE_FP32", dims=[3])
config.config.output.add(name="s", data_type="TYPE_STRING", dims=[])
case("config", config)
index = pb.RepositoryIndexResponse()
index.models.add(name="m", version="1", state="READY")
index.models.add(name="n", state="UNAVAILABLE", reason="failed to load")
case("index", index)
statistics = pb.ModelStatisticsResponse()
one = statistics.model_stats.add(name="m", version="1", last_inference=1700000000000,
                                 inference_count=10, execution_count=4)
PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
for i, part in enumerate(PARTS):
    getattr(one.inference_stats, part).CopyFrom(pb.StatisticDuration(count=i, ns=1000 * i))
case("statistics", statistics)
load = pb.RepositoryModelLoadRequest(model_name="m")
load.parameters["config"].string_param = '{"max_batch_size":"16"}'
load.parameters["file:1/model.onnx"].bytes_param = b"bytes"
case("load", load)
case("index_request", pb.RepositoryIndexRequest(repository_name="r", ready=True))
case("ready_request", pb.ModelReadyRequest(name="m", version="2"))

path = pathlib.Path(__file__).parent / "data" / "infer_pb.txt"
path.write_text("\n".join(lines) + "\n")
