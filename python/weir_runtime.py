# SPDX-License-Identifier: Apache-2.0
"""Serves a Python function as a model of Weir (platform "process").

    from weir_runtime import serve

    def predict(inputs):
        return {"y": inputs["x"].sum(axis=1)}

    serve(predict)

`inputs` is a dict of arrays by name, of NumPy where it is installed, else nested lists. What predict
returns is taken alike: a dict by output name, of arrays or (nested) lists; datatypes and shapes are those
that the model declares, in model.yaml or by serve(predict, inputs=[…], outputs=[…]):

    serve(predict, inputs=[("x", "FP32", [-1, 4])], outputs=[("y", "FP32", [-1])])

An exception of predict is told to the caller: ValueError and TypeError as a wrong input, MemoryError as
exhausted, any other as a failure of the model. Its traceback goes to stderr, which Weir logs.

This file needs nothing but the standard library. Copy it into the model's folder. The protocol is in
docs/formats.md of Weir; one thread answers one request at a time.
"""
import array
import json
import math
import os
import socket
import struct
import sys
import traceback

try:
    import numpy
except ImportError:
    numpy = None

PROTOCOL = 1
MAGIC = b"WRP1"
HEAD = struct.Struct("<4sHHQIIQ")
ALIGN = 64
HELLO, READY, RUN, ANSWER, ERROR = 1, 2, 3, 4, 5
# datatype: (NumPy's name, typecode of array and struct, bytes)
TYPES = {
    "BOOL": ("?", "?", 1),
    "UINT8": ("<u1", "B", 1),
    "UINT16": ("<u2", "H", 2),
    "UINT32": ("<u4", "I", 4),
    "UINT64": ("<u8", "Q", 8),
    "INT8": ("<i1", "b", 1),
    "INT16": ("<i2", "h", 2),
    "INT32": ("<i4", "i", 4),
    "INT64": ("<i8", "q", 8),
    "FP16": ("<f2", "e", 2),
    "FP32": ("<f4", "f", 4),
    "FP64": ("<f8", "d", 8),
    "BF16": ("<u2", "H", 2),  # the bits
}


class Gone(Exception):
    """The other end closed: time to end."""


def _gap(n):
    return -n % ALIGN


def _read(stream, n):
    data = bytearray(n)
    view = memoryview(data)
    at = 0
    while at < n:
        got = stream.recv_into(view[at:])
        if not got:
            raise Gone
        at += got
    return data


def _read_frame(stream):
    magic, kind, _, number, header_bytes, _, data_bytes = HEAD.unpack(_read(stream, HEAD.size))
    if magic != MAGIC:
        raise Gone
    header = json.loads(bytes(_read(stream, header_bytes)))
    _read(stream, _gap(HEAD.size + header_bytes))
    return kind, number, header, _read(stream, data_bytes)


def _write_frame(stream, kind, number, header, parts=()):
    text = json.dumps(header, separators=(",", ":")).encode()
    size = sum(len(part) + _gap(len(part)) for part in parts)
    out = [HEAD.pack(MAGIC, kind, 0, number, len(text), 0, size), text, bytes(_gap(HEAD.size + len(text)))]
    for part in parts:
        out += [part, bytes(_gap(len(part)))]
    stream.sendall(b"".join(out))


def _nest(flat, shape):
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [_nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _flatten(value, depth=8):
    if not isinstance(value, (list, tuple)):
        return [value], []
    if not depth:
        raise ValueError("lists are nested deeper than eight dimensions")
    rows = [_flatten(item, depth - 1) for item in value]
    if any(shape != rows[0][1] for _, shape in rows):
        raise ValueError("the rows of a list differ in length")
    return [v for flat, _ in rows for v in flat], [len(rows)] + (rows[0][1] if rows else [])


def _texts(raw, count):
    texts, at = [], 0
    for _ in range(count):
        (n,) = struct.unpack_from("<I", raw, at)
        texts.append(bytes(raw[at + 4 : at + 4 + n]).decode("utf-8", "surrogateescape"))
        at += 4 + n
    return texts


def _unpack(tensor, raw):
    shape = tensor["shape"]
    if tensor["datatype"] == "BYTES":
        flat = _texts(raw, math.prod(shape))
        return numpy.array(flat, dtype=object).reshape(shape) if numpy else _nest(flat, shape)
    name, code, size = TYPES[tensor["datatype"]]
    if numpy:
        return numpy.frombuffer(raw, dtype=name).reshape(shape)
    return _nest(list(struct.unpack(f"<{len(raw) // size}{code}", raw)), shape)


def _shape_for(spec, shape, count):
    """The declared shape where the value has the same rows with another rank: [n] for [-1, 1]."""
    declared = spec["shape"]
    fixed = math.prod(d for d in declared if d >= 0)
    if len(shape) == len(declared) or sum(d < 0 for d in declared) > 1 or not fixed or count % fixed:
        return shape
    filled = [d if d >= 0 else count // fixed for d in declared]
    return filled if shape[:1] == filled[:1] else shape


def _pack(spec, value):
    name = spec["datatype"]
    if name == "BYTES":
        flat, shape = _flatten(value.tolist() if hasattr(value, "tolist") else value)
        texts = [t if isinstance(t, bytes) else str(t).encode("utf-8", "surrogateescape") for t in flat]
        raw = b"".join(struct.pack("<I", len(t)) + t for t in texts)
        return _shape_for(spec, shape, len(texts)), raw
    if numpy:
        values = numpy.ascontiguousarray(value, dtype=TYPES[name][0])
        return _shape_for(spec, list(numpy.shape(value)), values.size), values.tobytes()
    flat, shape = _flatten(value.tolist() if isinstance(value, array.array) else value)
    return _shape_for(spec, shape, len(flat)), struct.pack(f"<{len(flat)}{TYPES[name][1]}", *flat)


def _answer(stream, number, outputs, values):
    if not isinstance(values, dict):
        if len(outputs) != 1:
            raise RuntimeError("predict must return a dict by output name")
        values = {outputs[0]["name"]: values}
    missing = [spec["name"] for spec in outputs if spec["name"] not in values]
    if missing:
        raise RuntimeError(f"predict did not return {', '.join(missing)}")
    tensors, parts = [], []
    for spec in outputs:
        shape, raw = _pack(spec, values[spec["name"]])
        tensors.append({**spec, "shape": shape, "bytes": len(raw)})
        parts.append(raw)
    _write_frame(stream, ANSWER, number, {"tensors": tensors}, parts)


def _code(error):
    if isinstance(error, (ValueError, TypeError, KeyError, IndexError)):
        return "INVALID_ARGUMENT"
    return "RESOURCE_EXHAUSTED" if isinstance(error, MemoryError) else "INTERNAL"


def _run(stream, number, header, data, predict, outputs):
    inputs, at = {}, 0
    view = memoryview(data)
    for tensor in header["tensors"]:
        inputs[tensor["name"]] = _unpack(tensor, view[at : at + tensor["bytes"]])
        at += tensor["bytes"] + _gap(tensor["bytes"])
    _answer(stream, number, outputs, predict(inputs))


def _specs(given):
    names = ("name", "datatype", "shape")
    return [spec if isinstance(spec, dict) else dict(zip(names, spec, strict=True)) for spec in given]


def serve(predict, inputs=None, outputs=None):
    """Answers until Weir closes the connection; returns then."""
    stream = socket.socket(fileno=int(os.environ.get("WEIR_RUNTIME_FD", "3")))
    try:
        _, _, hello, _ = _read_frame(stream)
        ready = {"protocol": PROTOCOL}
        if inputs is not None:
            ready.update(inputs=_specs(inputs), outputs=_specs(outputs))
        wanted = ready.get("outputs") or hello.get("outputs")
        if not wanted:
            text = "neither model.yaml nor serve() declares inputs and outputs"
            _write_frame(stream, ERROR, 0, {"code": "FAILED_PRECONDITION", "message": text})
            return
        _write_frame(stream, READY, 0, ready)
        while True:
            kind, number, header, data = _read_frame(stream)
            if kind != RUN:
                return
            try:
                _run(stream, number, header, data, predict, wanted)
            except (Gone, OSError):
                raise
            except Exception as error:  # the program goes on: it is this request that failed
                traceback.print_exc(file=sys.stderr)
                message = f"{type(error).__name__}: {error}"[:400]
                _write_frame(stream, ERROR, number, {"code": _code(error), "message": message})
    except (Gone, OSError):
        return
