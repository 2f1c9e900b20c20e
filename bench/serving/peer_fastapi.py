# SPDX-License-Identifier: Apache-2.0
"""A FastAPI server written for speed: orjson both ways, no response model, no thread hand-over."""
import orjson
from fastapi import FastAPI, Request, Response

import peer_onnx

app = FastAPI()
session = peer_onnx.open_session()


@app.post(peer_onnx.PATH)
async def infer(request: Request):
    try:
        rows = peer_onnx.rows_of(session, orjson.loads(await request.body()))
    except ValueError as why:
        return Response(orjson.dumps({"error": str(why)}), 400, media_type="application/json")
    return Response(orjson.dumps(peer_onnx.answer(session, rows)), media_type="application/json")
