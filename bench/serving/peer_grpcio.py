# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over grpc's own Python server (asyncio), one row at a time."""
import asyncio
import sys

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

import peer_onnx


class Onnx(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self):
        self.session = peer_onnx.open_session()
        self.names = [output.name for output in self.session.get_outputs()]

    async def ModelInfer(self, request, context):
        tensor = request.inputs[0]
        rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tensor.shape)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        for name, array in zip(self.names, self.session.run(None, {"x": rows}), strict=True):
            response.outputs.add(name=name, datatype=peer_onnx.TYPES[array.dtype.name], shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


async def main():
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Onnx(), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
