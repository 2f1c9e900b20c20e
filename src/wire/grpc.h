/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC over HTTP/2: what stands between a stream and its messages. Length-prefixed messages in the
 * body, the call's fields (path, content type, timeout, encodings), and the status in the trailers.
 * No state: a body is a piece of memory, and a call is what its head says.
 * (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/compression.md)
 *
 * enum code of base/ holds the numbers of gRPC, so nothing is mapped.
 */
#pragma once

#include "wire/http1.h"
#include "wire/inflate.h"

#define GRPC_PREFIX_BYTES 5
#define GRPC_MESSAGE_BYTES_MAX INT32_MAX /* what other implementations can take */

/* --- The head of a call ----------------------------------------------------------------------- */

struct grpc_call {
    str service; /* "inference.GRPCInferenceService"; borrowed from the request's path */
    str method;  /* "ModelInfer" */
    enum coding request_coding;
    enum coding answer_coding; /* what the client would take: compressing is the server's choice */
    int64_t timeout_ns;        /* > 0; -1 when the client named none */
};

/* "application/grpc", also with "+proto" or parameters. */
bool grpc_is_content_type(str value);
/*
 * Reads the head of a call whose content type is gRPC's. UNIMPLEMENTED: a path of another form, an
 * unknown encoding, or a message format that is not protobuf; INVALID_ARGUMENT: a broken timeout;
 * INTERNAL: not a POST.
 */
NODISCARD int grpc_call_read(const struct http1_request *req, struct grpc_call *ret_call,
                             struct err *e);
/* "100m", at most eight digits and one of H M S m u n; larger than int64 allows: INT64_MAX. */
NODISCARD bool grpc_timeout_parse(str text, int64_t *ret_timeout_ns);
/* The code for an answer that HTTP/2 itself refused with this status. */
enum code grpc_code_of_http(int status);

/* --- The client's side ------------------------------------------------------------------------ */

#define GRPC_TIMEOUT_TEXT 40
/* The value of grpc-timeout for ns > 0, rounded up to eight digits. */
str grpc_timeout_write(int64_t timeout_ns, char text[GRPC_TIMEOUT_TEXT]);
/* The number in grpc-status; CODE_UNKNOWN for what is none. */
enum code grpc_status_parse(str text);
/* Decodes grpc-message into plain text, cut to what fits, control characters replaced. */
void grpc_text_decode(str text, char *ret_text, size_t size);

/* --- Messages --------------------------------------------------------------------------------- */

struct grpc_message {
    str bytes; /* borrowed from the body; still encoded when compressed */
    bool compressed;
};

enum grpc_step {
    GRPC_MORE,    /* the next message is not all there */
    GRPC_MESSAGE, /* *ret_used bytes are this message */
    GRPC_BROKEN,
};

/* The message at the start of `body`. Broken (e is filled): RESOURCE_EXHAUSTED for one of more
 * than max_bytes, known from its prefix; INTERNAL for a wrong flag. */
enum grpc_step grpc_message_next(str body, size_t max_bytes, struct grpc_message *ret_message,
                                 size_t *ret_used, struct err *e);
/* A message as it is to be read: itself, or unfolded into `scratch` (cleared before). INTERNAL: the
 * flag is set in a call without encoding, or the data are broken; RESOURCE_EXHAUSTED: a limit. */
NODISCARD int grpc_message_read(struct coder *coder, const struct grpc_call *call,
                                const struct grpc_message *m, size_t max_bytes, struct buf *scratch,
                                str *ret_bytes, struct err *e);

/* Writes the prefix of a message; what is appended after it, until grpc_message_end, is the
 * message. */
size_t grpc_message_begin(struct buf *to);
/* RESOURCE_EXHAUSTED when `to` is full or the message is too large. */
NODISCARD int grpc_message_end(struct buf *to, size_t began, struct err *e);
/* The same for bytes that are to be compressed. */
NODISCARD int grpc_message_write(struct coder *coder, enum coding coding, str bytes, struct buf *to,
                                 struct err *e);

/* --- Status ----------------------------------------------------------------------------------- */

#define GRPC_TRAILERS_MAX 2
#define GRPC_TEXT_BYTES 1600 /* room for the longest message of struct err, encoded */

/* grpc-status and, for a failure, grpc-message: as trailers, or behind a content type as the fields
 * of an answer of a head alone. Texts lie in `text`. Returns how many. NULL e: OK. */
size_t grpc_trailers(const struct err *e, char text[GRPC_TEXT_BYTES],
                     struct http1_header ret_fields[GRPC_TRAILERS_MAX]);
/* Percent-encodes what a field value cannot hold; for statuses that are not struct err. */
void grpc_text_encode(struct buf *to, str text);
