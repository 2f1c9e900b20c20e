/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 (RFC 9110, RFC 9112), server side, without sockets: bytes of a connection buffer in,
 * request heads and bodies out, in place. No allocation, no copy of the head; chunked bodies are
 * decoded where they lie. The client side is in http1_client.h.
 *
 * Three levels, each usable alone:
 *   http1_head_parse   one request head at the start of some bytes
 *   http1_body_decode  the framing of one body (also of responses), piece by piece, for streaming
 *   http1_parse        both, for servers that want the whole request in one buffer: the hot path
 *
 * Strictness: what two programs might read in two ways is refused, each refusal with its status and
 * reason (http1_refusals.def), after which the connection must be closed: bare LF or CR, NUL and
 * control characters, blanks before the colon or at the start of a line (obs-fold), repeated
 * Content-Length or Host or other field that may stand once, Content-Length beside
 * Transfer-Encoding, any coding but a single "chunked", signs, hex or blanks in lengths, a missing
 * Host in HTTP/1.1, user information in a Host. One empty line before a request is tolerated, as
 * RFC 9112 section 2.2 asks.
 */
#pragma once

#include "base/buf.h"

/* --- Limits --------------------------------------------------------------------------------- */

#define HTTP1_HEADERS_MAX 64

struct http1_limits {
    uint32_t head_bytes;       /* request line and header section: 431 (a long target: 414) */
    uint32_t target_bytes;     /* 414 */
    uint32_t headers;          /* <= HTTP1_HEADERS_MAX: 431 */
    uint64_t body_bytes;       /* decoded: 413; known from Content-Length before the body is read */
    uint32_t chunk_line_bytes; /* size and extensions: 400 */
    uint32_t small_chunks;     /* chunks under 512 bytes in one body: 413 */
    uint32_t trailer_bytes;    /* 431 */
};

/* 16 KiB head, 8 KiB target, 64 headers, 64 MiB body, 256-byte chunk lines, 16,384 small chunks,
 * 4 KiB of trailers. */
extern const struct http1_limits HTTP1_LIMITS_DEFAULT;

/* --- Heads ---------------------------------------------------------------------------------- */

enum http1_method {
#define METHOD(name, text) HTTP1_M_##name,
#include "wire/http1_methods.def"
#undef METHOD
    HTTP1_M_OTHER, /* a well-formed token that is none of these: the router answers 405 or 501
                    */
    HTTP1_M_COUNT
};

/* Fields the parser recognises while it reads: found without a search. */
enum http1_known {
#define KNOWN(name, text, first, last, repeat) HTTP1_F_##name,
#include "wire/http1_known.def"
#undef KNOWN
    HTTP1_KNOWN_COUNT
};

enum http1_framing {
    HTTP1_BODY_NONE,
    HTTP1_BODY_LENGTH,
    HTTP1_BODY_CHUNKED,
    HTTP1_BODY_CLOSE, /* responses: until the connection ends; HTTP/2: until the stream does */
};

struct http1_header {
    str name;  /* as sent; compare with str_eq_nocase */
    str value; /* blanks at both ends removed; bytes >= 0x80 possible */
};

/* The fields of a request or response: slices into the connection buffer. */
struct http1_fields {
    uint32_t count;
    uint8_t connection;               /* what the Connection fields said; see keep_alive */
    uint8_t known[HTTP1_KNOWN_COUNT]; /* 1-based index of the first such header; 0 = absent */
    struct http1_header headers[HTTP1_HEADERS_MAX]; /* [0, count) is valid */
};

struct http1_request {
    enum http1_method method;
    str method_text;
    str target;            /* as sent */
    str path;              /* starts with '/', not decoded; "*" for OPTIONS * */
    str query;             /* after '?', not decoded; p == NULL when there is none */
    str host;              /* the authority: of an absolute target, else of Host; may be empty */
    uint8_t version_minor; /* HTTP/1.0 or 1.1 */
    bool keep_alive;
    bool expect_continue; /* answer HTTP1_CONTINUE before the body will come */
    bool upgrade;         /* Connection named "upgrade": only h2c or WebSocket code looks at it */
    enum http1_framing framing;
    uint64_t content_length; /* valid for HTTP1_BODY_LENGTH */
    size_t head_bytes;       /* the body starts here, counted from the bytes that were parsed */
    str body;                /* set by http1_parse with HTTP1_REQUEST */
    struct http1_fields fields;
};

enum http1_refusal {
    HTTP1_OK,
#define REFUSAL(name, status, reason) HTTP1_NO_##name,
#include "wire/http1_refusals.def"
#undef REFUSAL
    HTTP1_REFUSAL_COUNT
};
int http1_refusal_status(enum http1_refusal r);
str http1_refusal_reason(enum http1_refusal r); /* one line, plain ASCII */

/* p == NULL when absent. */
static inline str http1_known(const struct http1_fields *f, enum http1_known k)
{
    return f->known[k] ? f->headers[f->known[k] - 1].value : STR_NULL;
}
/* Any field, by name without case: a search. p == NULL when absent; the first when repeated. */
str http1_field(const struct http1_fields *f, str name);
/* True when a comma-separated field value holds the token (no case, parameters ignored). */
bool http1_has_token(str value, str token);
/* The slices of *req follow when its bytes move from `from` to `to` (the buffer was reallocated).
 */
void http1_request_move(struct http1_request *req, const char *from, const char *to);

enum http1_event {
    HTTP1_MORE,    /* read more bytes and call again */
    HTTP1_HEAD,    /* the head is complete */
    HTTP1_DATA,    /* a body has progressed, more is to come */
    HTTP1_REQUEST, /* all is complete */
    HTTP1_REFUSED,
};

/*
 * Parses one head in p[0, n): HTTP1_HEAD, HTTP1_MORE or HTTP1_REFUSED with *ret_refusal. *seen must
 * be 0 for a new request and be kept between calls while more bytes come: it makes slow senders
 * cheap. The result depends on the bytes alone, not on how they were cut; only, a head that comes
 * in pieces is looked at again when a line end arrives, so that a refusal may wait for that.
 */
enum http1_event http1_head_parse(const char *p, size_t n, const struct http1_limits *limits,
                                  size_t *seen, struct http1_request *req,
                                  enum http1_refusal *ret_refusal);

/* --- Bodies --------------------------------------------------------------------------------- */

struct http1_body {
    const struct http1_limits *limits; /* borrowed */
    uint64_t left;                     /* bytes of the body or of the chunk still to come */
    uint64_t bytes;                    /* decoded so far */
    uint32_t small_chunks;
    uint32_t trailer_bytes;
    uint8_t state;
};

/* HTTP1_NO_BODY_TOO_LARGE when the length announced is over the limit; else HTTP1_OK. */
enum http1_refusal http1_body_begin(struct http1_body *b, enum http1_framing framing,
                                    uint64_t content_length, const struct http1_limits *limits);
/*
 * Decodes p[0, n): consumes *ret_used raw bytes and leaves the *ret_out <= *ret_used decoded ones
 * at p[0, *ret_out). HTTP1_REQUEST when the body is complete, HTTP1_MORE or HTTP1_DATA (*ret_out >
 * 0) when not; bytes past *ret_used must be presented again. Trailers are checked and dropped.
 */
enum http1_event http1_body_decode(struct http1_body *b, char *p, size_t n, size_t *ret_used,
                                   size_t *ret_out, enum http1_refusal *ret_refusal);
/* The connection ended: true when the body is complete by that (HTTP1_BODY_CLOSE). */
bool http1_body_end(struct http1_body *b);

/* --- Whole requests ------------------------------------------------------------------------- */

struct http1_parser {
    struct http1_limits limits;
    struct http1_body body;
    size_t seen;
    size_t body_at;  /* where the decoded body starts */
    size_t body_n;   /* decoded so far */
    size_t consumed; /* after HTTP1_REQUEST: the next request starts here */
    enum http1_refusal refusal;
    bool in_body;
};

void http1_parser_init(struct http1_parser *ps,
                       const struct http1_limits *limits); /* NULL: default */

/*
 * Parses the request at the start of p[0, *n).
 *   HTTP1_REQUEST  *req is complete, body included. The next request starts at ps->consumed: handle
 *                  this one, drop those bytes, call again while bytes are left (pipelining).
 *   HTTP1_HEAD     given at most once per request, when the body is not all there: the moment to
 *                  check rights and to answer Expect. Read on and call again, or answer and close.
 *   HTTP1_MORE     read more at p + *n. A reallocated buffer is fine between HTTP1_HEAD and
 *                  HTTP1_REQUEST if http1_request_move follows it.
 *   HTTP1_REFUSED  ps->refusal says why. Answer with http1_write_refusal and close.
 * *n shrinks as chunk framing is taken out: a buffer of head_bytes + body_bytes + 8 KiB holds any
 * request. Buffer room wanted for the rest of a body of known length: http1_parser_wants.
 */
enum http1_event http1_parse(struct http1_parser *ps, char *p, size_t *n,
                             struct http1_request *req);
/* Bytes still to come of a request whose head is known; 0 when not known. */
size_t http1_parser_wants(const struct http1_parser *ps, size_t n);

/* The client connection preface of HTTP/2 (prior knowledge): 1 = it is, 0 = it is not, -1 = too
 * short to tell. To be asked before http1_parse on a new connection. */
int http1_is_h2_preface(const char *p, size_t n);
#define HTTP1_H2_PREFACE_BYTES 24

/* --- Targets -------------------------------------------------------------------------------- */

/*
 * Percent-decodes one path segment, exactly once, into out (size >= raw.n is enough). Refuses what
 * a later reader could take for something else: a wrong escape, NUL and controls, an encoded or
 * plain '/' or '\', "." and "..", a '%' left after decoding, bytes that are not UTF-8, an empty
 * segment. INVALID_ARGUMENT.
 */
NODISCARD int http1_segment_decode(str raw, char *out, size_t size, str *ret, struct err *e);
/* The same for a relative path of several segments ("a/b/c"): each must pass. */
NODISCARD int http1_path_decode(str raw, char *out, size_t size, str *ret, struct err *e);
/* Cuts the next segment off a path: "/v2/models" gives "v2", then "models", then false. Not
 * decoded. */
bool http1_path_next(str *path, str *ret_segment);

/*
 * The value of `name` in a query ('+' is a blank, %XX decoded once), into out. NOT_FOUND when
 * absent; INVALID_ARGUMENT for a wrong escape, NUL, bytes that are not UTF-8, or a repeated name.
 */
NODISCARD int http1_query_get(str query, str name, char *out, size_t size, str *ret, struct err *e);

/* --- Writing -------------------------------------------------------------------------------- */

#define HTTP1_CONTINUE S("HTTP/1.1 100 Continue\r\n\r\n")
#define HTTP1_LENGTH_CHUNKED UINT64_MAX     /* Transfer-Encoding: chunked */
#define HTTP1_LENGTH_CLOSE (UINT64_MAX - 1) /* no length: the end of the connection ends it */

/*
 * Appends a response head with its empty line. `content_type` may be empty. `extra` is complete
 * header lines, each with its CRLF, made by the program or by http1_write_field; usually also the
 * Date line that the caller renews once a second. Statuses 204 and 304 get no body fields.
 */
void http1_write_head(struct buf *out, int status, str content_type, uint64_t content_length,
                      bool keep_alive, str extra);
/* "Name: value\r\n"; false, and nothing appended, when the value holds a control character. */
NODISCARD bool http1_write_field(struct buf *out, str name, str value);
/* A whole answer {"error":"reason","code":"INVALID_ARGUMENT"} with Connection: close. */
void http1_write_refusal(struct buf *out, enum http1_refusal r);
void http1_write_chunk(struct buf *out, str data); /* nothing for an empty one */
void http1_write_last_chunk(struct buf *out);
str http1_status_text(int status); /* "Not Found"; "Status" for a number not in the table */

#define HTTP1_DATE_LINE_BYTES 37
/* "Date: Mon, 23 Nov 2026 20:40:00 GMT\r\n" */
void http1_date_line(int64_t wall_ns, char ret_line[HTTP1_DATE_LINE_BYTES]);
