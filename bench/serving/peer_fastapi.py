# SPDX-License-Identifier: Apache-2.0
"""A FastAPI server written for speed: orjson both ways, no response model, no thread hand-over."""
import orjson
from fastapi import FastAPI, Request, Response

import peer_onnx

app = FastAPI()
session = peer_onnx.open_session()


@app.get("/v2/health/ready")
async def ready():
    return Response()


@app.post("/v2/models/gbm/infer")
async def infer(request: Request):
    try:
        rows = peer_onnx.rows_of(orjson.loads(await request.body()))
    except ValueError as why:
        return Response(orjson.dumps({"error": str(why)}), 400, media_type="application/json")
    return Response(orjson.dumps(peer_onnx.answer(session, rows)), media_type="application/json")
