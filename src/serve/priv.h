/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the gateway: one serve_loop for each serving thread, its connections, and the exchanges
 * (requests) of the turn under way.
 *
 * The life of a request. A connection reads what the socket has; each complete request becomes an
 * exchange: its rows are parsed straight into the lane of the endpoint's champion and moved to
 * another lane where the routing says so. At the end of the turn (or earlier, when a lane or the
 * table of exchanges is full) turn_flush() runs each lane once, writes all answers in the order of
 * arrival, and puts the records into the ring. So nothing is in flight between turns: that is where
 * a new plan is taken over, and why an old one can be let go.
 */
#pragma once

#include "loop/listen.h"
#include "loop/thread.h"
#include "record/ring.h"
#include "base/random.h"
#include "serve/crew.h"
#include "serve/fallback.h"
#include "serve/gateway.h"
#include "serve/served.h"
#include "wire/grpc.h"
#include "wire/http2.h"

#define EXCHANGES_MAX 1024  /* in one turn of one loop; then the turn is flushed early */
#define LANES_DIRTY_MAX 256 /* models used in one turn */
#define REQUEST_ID_MAX RECORD_ID_MAX

struct serve_loop;
struct exchange;
struct offload;
struct route_match;
struct grpc_stream;
struct telemetry;
struct telemetry_loop;
struct tracked;

#define SOCKETS_MAX 64u

struct sockets {
    int fds[SOCKETS_MAX];
    size_t n;
};

#define OUT_MAX_BYTES ((size_t)512 << 20) /* of answers that wait in a connection */

/* An answer, whatever carries it. */
struct answer {
    struct http2_stream *stream; /* NULL: HTTP/1.1 */
    int status;
    const char *content_type;
    str request_id;
    size_t json_bytes;  /* > 0: raw tensors follow this much JSON */
    bool keep_alive;    /* HTTP/1.1 */
    str more_head;      /* complete header lines; or empty */
    uint32_t retry_ms;  /* of a refusal; 0: a second */
    enum coding coding; /* what the client takes */
    str body;
};

/* What http2_stream.owner points to: who works for it, and hears when its peer is gone. */
struct stream_owner {
    void (*closed)(struct stream_owner *o);
};

/* How the answer to an exchange is written: one for each protocol form. */
struct exchange_form {
    const char *name;
    /* Hands the answer, or the error that rc and e are, to who waits for it. `body` is what write
     * made, or the JSON of the error. Called once for each exchange, also when its connection is
     * gone (x->conn is NULL). */
    void (*respond)(struct exchange *x, int rc, const struct err *e, str body);
    /* Writes the body of the answer of `x` from `outputs` (its own rows only). */
    NODISCARD int (*write)(struct serve_loop *l, struct exchange *x, const struct tensor *outputs,
                           struct buf *body, struct err *e);
};

struct exchange {
    struct conn *conn;           /* NULL: nobody waits any more */
    struct http2_stream *stream; /* NULL: HTTP/1.1 */
    struct tracked *tracked;     /* of exchange_arena(); NULL: nobody is told (observe.h) */
    struct offload *off;         /* it runs in a crew (offload.c); NULL: in the turn */
    struct served_endpoint *ep;
    struct served_version *version;
    const struct exchange_form *form;
    void *form_state;      /* of exchange_arena() */
    void *form_owner;      /* of the form */
    uint32_t row_at, rows; /* in the lane of the version */
    int64_t arrival_ns;    /* monotonic */
    int64_t wall_ns;
    int64_t deadline_ns;
    uint8_t priority;              /* 1..PLAN_PRIORITIES */
    enum shed_reason shed;         /* why, if it comes back as UNAVAILABLE */
    bool caught;                   /* refused as overload, and its fallback answers: nothing ran */
    struct replay *replay;         /* its id is taken: a reference; NULL: it is not */
    const struct replay *repeated; /* the answer is one that was given before */
    struct exchange_fallback fb;   /* since it was routed */
    const char *content_type;
    size_t json_bytes; /* > 0: the body is followed by raw tensors */
    unsigned char user[RECORD_USER_BYTES];
    bool has_user;
    bool keep_alive;
    bool id_given;      /* by the client */
    enum coding coding; /* what the client takes, of the answer */
    uint8_t id_bytes;
    char id[REQUEST_ID_MAX];
};

/* A connection of one loop. */
struct conn {
    struct loop_fd watch;
    struct tls *tls; /* owned; NULL: plain */
    struct serve_loop *l;
    struct conn *next, *prev;  /* all connections of the loop, least recently active first */
    struct conn *touched_next; /* with work in this turn */
    bool touched;
    bool closing;     /* after what is in `out` */
    bool lingering;   /* all is sent: what still comes is thrown away until the peer closes */
    bool paused;      /* requests wait in `in` until the peer reads its answers */
    bool unread;      /* a read was put off: there will be no edge for it */
    bool half_closed; /* the peer has closed its side: read to the end, no edge will come */
    bool ended;       /* the peer will send nothing more, all of it was read */
    bool drained;     /* looked at once more after the gateway was told to stop */
    bool gone;        /* closed; freed when the last offload is back */
    uint64_t peer;    /* guard_peer_id() of the other end */
    struct guard_caller caller; /* of the request at hand, as the guard found out */
    str more_head;              /* complete header lines for the next answer; or empty */
    uint32_t retry_ms;          /* when the next refusal says to come again; 0: in a second */
    enum shed_reason shed;      /* why it was refused */
    uint32_t permissions;       /* MAY() of who made the request at hand */
    int64_t came_ns;            /* when what was read last had reached this machine */
    uint32_t pending;           /* exchanges of this turn not yet answered */
    struct offload *away;   /* in crews. Until they are back `in` does not move, and nothing more is
                               taken from it */
    uint32_t errands;       /* as little, until they are back */
    int64_t active_ns;      /* last byte in or out */
    int64_t request_ns;     /* arrival of the first byte of an incomplete request, 0 = none */
    int64_t linger_ns;      /* since when it is lingering */
    uint64_t hold_first;    /* answers wait until the ring from here … */
    uint64_t hold_position; /* … to here is on disk; 0 = no */
    size_t hold_from;       /* where in `out` the first such answer begins */
    size_t parsed;          /* bytes of `in` that belong to requests already taken */
    struct http1_parser parser;
    struct http1_request own_req;
    const struct http1_request *req; /* the request at hand, */
    struct http2_stream *stream;     /* its stream (NULL on HTTP/1.1, and once it is answered), */
    const struct grpc_call *call;    /* and what it calls, if it is gRPC */
    struct http2_session *h2;        /* owned; NULL: HTTP/1.1 */
    bool greeted;                    /* the protocol is known */
    bool noted;                      /* telemetry has been told of the request at hand */
    bool unfolded;                   /* the body at hand was folded: it lives in the turn */
    struct grpc_stream *streaming;   /* calls of it that stream */
    int64_t ticked_ns, moved_ns;     /* http2_tick; when the peer last took something */
    struct loop_task more;           /* goes on reading in the next turn */
    struct buf in, out;
    size_t sent; /* bytes of `out` already written */
};

/* One place where a loop accepts. */
struct serve_listener {
    struct listener listener;
    struct serve_loop *l;
};

struct serve_loop {
    struct gateway *gw;
    struct guard_loop *guard;
    struct telemetry_loop *telemetry; /* NULL: none */
    struct {
        str tenant, name;
    } caller; /* of the request at hand, until the guard is asked again */
    uint32_t index;
    struct loop *loop;
    struct thread thread;
    struct serve_listener *listeners; /* owned */
    size_t listener_count;
    struct tls_context *tls; /* a reference; NULL: connections are plain */
    struct mailbox mailbox;
    struct mailbox returns; /* offloads that have run */
    struct mailbox errands; /* loads and unloads that are done */
    struct offload *idle;   /* offloads to be used again */
    uint32_t idle_count;
    struct loop_hook turn_end;
    struct loop_timer sweep;  /* idle and slow connections */
    struct served_plan *plan; /* what this loop serves; NULL before the first plan */
    struct arena turn;        /* reset when a turn ends */
    struct coder *coder;      /* owned; made when something compressed comes */
    struct buf unfolded;      /* its output, either way */
    struct arena document;    /* JSON trees (feedback): capped, reset after each */
    struct exchange exchanges[EXCHANGES_MAX];
    uint32_t exchange_count;
    struct lane *dirty[LANES_DIRTY_MAX];
    uint32_t dirty_count;
    struct conn *conns_first, *conns_last;
    struct conn *touched;
    uint32_t held;            /* atomic: connections whose answers wait for the disk */
    struct mail durable_mail; /* from the keeper: something was flushed */
    bool durable_posted;      /* atomic: durable_mail is under way */
    struct mail drain_mail;   /* from gateway_stop: finish what came in, take no more */
    struct loop_task drain;
    struct mail leave_mail; /* from gateway_leave */
    struct loop_task leave;
    int64_t left_ns; /* when its connections were told that the gateway leaves; 0: not */
    char date_line[HTTP1_DATE_LINE_BYTES + 1];
    int64_t date_s;
    uint32_t conn_count;
    struct buf body;
    struct record_ring *ring; /* NULL: records are off */
    struct rng rng;
    struct loop_counters counters;
    int64_t now_ns, wall_ns; /* of this turn */
    int64_t ran_ns;          /* when the last runs were over */
    int64_t turn_ns;         /* how long the last turn took */
    int64_t gathered_ns;     /* what the rows gathered in this turn will cost, by lately */
};

/* --- turn.c: gathering, running, answering ---------------------------------------------------- */

/* Begins a request of `ep` with a body of body_bytes: it is in the list of the turn, and
 * *ret_inputs are tensors over the free end of the lane of `read_into`, for a reader of at most
 * rows_max rows. Flushes the turn first where there is no room for it. An endpoint whose models run
 * in crews gets memory of its own instead, large enough for what such a body can hold. */
struct exchange *turn_begin(struct serve_loop *l, struct conn *c, struct served_endpoint *ep,
                            struct served_version *read_into, size_t body_bytes,
                            struct tensor **ret_inputs) RUNS_ON(on_loop);
extern const str oip_extensions[];
extern const uint32_t oip_extension_count;

extern struct stream_owner exchange_in_turn; /* of a stream whose exchange is in the turn */
/* The fields that every exchange begins with; takes the stream at hand. */
void exchange_begin(struct serve_loop *l, struct exchange *x, struct conn *c,
                    struct served_endpoint *ep);
/* For what belongs to the exchange until it is answered. */
struct arena *exchange_arena(struct serve_loop *l, struct exchange *x);
/* Takes back the newest exchange (its request was refused). */
void turn_drop(struct serve_loop *l, struct exchange *x) RUNS_ON(on_loop);
/* The request is read: `rows` rows lie at the end of the lane of `read_into`. Routes it, moves the
 * rows, and leaves x ready for the flush. Fails when it must be shed. */
NODISCARD int turn_commit(struct serve_loop *l, struct exchange *x,
                          struct served_version *read_into, uint32_t rows, str sticky_key,
                          struct err *e) RUNS_ON(on_loop);
void turn_flush(struct serve_loop *l) RUNS_ON(on_loop);
struct exchange_times {
    uint64_t total_us, compute_us;
    uint32_t batch_rows;                /* of the run */
    const struct trace_context *ran_in; /* the call that the run was; NULL: no trace went out */
};
/* Writes and records the answer of x from its own rows of inputs and outputs (or of the error rc,
 * *e), and counts it. */
void exchange_answer(struct serve_loop *l, struct exchange *x, int rc, struct err *e,
                     const struct tensor *inputs, const struct tensor *outputs,
                     const struct exchange_times *t) RUNS_ON(on_loop);
/* The respond of forms that are plain HTTP. */
void exchange_respond(struct exchange *x, int rc, const struct err *e, str body);
/* The body of a request, for a reader that borrows from it until x is answered. */
str exchange_body(struct serve_loop *l, struct exchange *x, str body);
/* Sets the version that answers: the one named, or by weight and key. */
void exchange_route(struct serve_loop *l, struct exchange *x, str key);
NODISCARD int exchange_too_late(const struct exchange *x, struct err *e); /* DEADLINE_EXCEEDED */

/* --- admission.c: who is refused as overload -------------------------------------------------- */

#define CONN_BEHIND_NS (2 * NS_PER_MS) /* a turn this long makes what came meanwhile wait */

/* Before the body of a request for ep, which has a champion, is looked at: UNAVAILABLE or
 * DEADLINE_EXCEEDED when nothing in it could save it. timeout_ns is of the call; -1: none. */
NODISCARD int admission_early(struct conn *c, struct served_endpoint *ep, int64_t timeout_ns,
                              struct err *e) RUNS_ON(on_loop);
/* Sets priority and deadline of x from its parameters (may be empty), headers, and the timeout of
 * the call (-1: none); INVALID_ARGUMENT. After exchange_identify(). */
NODISCARD int admission_read(struct conn *c, struct exchange *x, str parameters, int64_t timeout_ns,
                             struct err *e) RUNS_ON(on_loop);
/* x is read and routed. UNAVAILABLE: c->shed says why. */
NODISCARD int admission_check(const struct exchange *x, struct err *e) RUNS_ON(on_loop);
NODISCARD int admission_queue_full(const struct exchange *x, struct err *e); /* UNAVAILABLE */
/* x was let in, and its fallback is to run in a crew: UNAVAILABLE, and x->shed says why. */
NODISCARD int admission_next(struct exchange *x, struct err *e);
/* UNAVAILABLE for what x->shed says, without a word to the connection. */
NODISCARD int admission_refused(const struct exchange *x, struct err *e);

enum request_end exchange_end_of(enum code code);

/* --- fallback.c: when the version of an exchange has failed ----------------------------------- */

/* x is routed; `named`: by the request itself. */
void fallback_begin(struct exchange *x, bool named);
/* True for an endpoint whose fallback may answer what would be refused as overload. */
bool fallback_takes_shed(const struct served_endpoint *ep);
/* Admission has refused x with rc. True when it goes down the chain instead: x is caught. */
bool fallback_catches_shed(struct exchange *x, int rc, bool with_versions);
/* x->version has failed with `code` (or was overloaded). True: it is on record, and x is now the
 * next step's, to be run by fb.until_ns, or static. False: the failure is the answer. */
NODISCARD bool fallback_next(struct serve_loop *l, struct exchange *x, enum code code, bool shed)
    RUNS_ON(on_loop);
/* The same, straight to the static answer. */
NODISCARD bool fallback_answer(struct serve_loop *l, struct exchange *x, enum code code, bool shed)
    RUNS_ON(on_loop);
/* The last moment to answer x: its deadline, or a bit before it for a static answer. */
int64_t fallback_last_ns(const struct exchange *x);
bool fallback_is_static(const struct exchange *x); /* its answer is there: fallback_outputs() */
struct tensor *fallback_outputs(struct serve_loop *l, const struct exchange *x);
void fallback_count(const struct serve_loop *l, const struct exchange *x); /* it has answered */
/* What an answer says of it, in each form; nothing where it is the first version's. */
void fallback_write(struct json_out *o, const struct exchange *x); /* a member of an object */
str fallback_parameters(struct serve_loop *l, const struct exchange *x);
str fallback_header(struct serve_loop *l, const struct exchange *x); /* the value */

/* --- idempotency.c: repeated request ids ------------------------------------------------------ */

/* x is read, and its endpoint keeps answers. *ret_done: it was a repeat, is answered, and gone.
 * ABORTED: the first is under way; ALREADY_EXISTS: it was another request. */
NODISCARD int idempotency_begin(struct conn *c, struct exchange *x, str body, bool *ret_done,
                                struct err *e) RUNS_ON(on_loop);
/* x is answered with that body: it is kept, or forgotten when it failed. */
void idempotency_end(struct serve_loop *l, struct exchange *x, int rc, str body);
void idempotency_drop(struct exchange *x); /* x is refused */
void idempotency_write_metrics(struct buf *to, const struct served_plan *plan);
/* Header lines of an answer that not every answer has. */
str exchange_head(const struct exchange *x, int rc);

/* --- offload.c: exchanges that run in crews --------------------------------------------------- */

struct exchange *offload_begin(struct serve_loop *l, struct conn *c, struct served_endpoint *ep,
                               size_t body_bytes, struct tensor **ret_inputs) RUNS_ON(on_loop);
void offload_drop(struct serve_loop *l, struct exchange *x) RUNS_ON(on_loop);
NODISCARD int offload_commit(struct serve_loop *l, struct exchange *x, uint32_t rows,
                             str sticky_key, struct err *e) RUNS_ON(on_loop);
struct arena *offload_arena(struct offload *off);
void offload_returned(struct loop *loop, struct mailbox *mb, struct mail *m);
void offloads_abandon(struct conn *c);    /* nobody waits for what it has in crews */
void offloads_done(struct serve_loop *l); /* frees the idle ones */

/* --- sockets.c: where the loops listen -------------------------------------------------------- */

/* Opens, or takes over, what all loops listen on; *ret_local: only this machine can reach it. */
NODISCARD int sockets_open(const struct gateway_config *cfg, struct sockets *ret, bool *ret_local,
                           uint16_t *ret_port, struct err *e);
/* Gives loop l copies of its share. */
NODISCARD int sockets_listen(const struct sockets *s, const struct gateway_config *cfg,
                             struct serve_loop *l, struct err *e);
void sockets_stop(struct serve_loop *l); /* accepts no more; what waits is left to other holders */
void sockets_close(struct sockets *s);

/* --- errand.c: what is done elsewhere, and answered then
 * ------------------------------------------
 */

/* Loads or unloads an endpoint and then answers the request at hand. */
void errand_begin(struct conn *c, str endpoint, bool load) RUNS_ON(on_loop);
void errand_returned(struct loop *loop, struct mailbox *mb, struct mail *m);
/* Something away still needs c as it is. */
static inline bool conn_waits(const struct conn *c)
{
    return c->away || c->errands;
}

/* --- conn.c ----------------------------------------------------------------------------------- */

void conn_accept(struct loop *loop, struct listener *li, int fd, const struct addr *peer);
void conn_close(struct conn *c) RUNS_ON(on_loop);
/* Answers. conn_answer flushes the turn first when earlier requests of the connection are pending.
 */
void conn_answer(struct conn *c, int status, const char *content_type, str body) RUNS_ON(on_loop);
void conn_answer_error(struct conn *c, const struct err *e) RUNS_ON(on_loop); /* OIP form */
/* An answer of any form, to whom it belongs. A stream is let go of with it. */
void conn_respond(struct conn *c, const struct answer *a) RUNS_ON(on_loop);
void conns_turn_end(struct loop *loop, struct loop_hook *h); /* answers, sends, compacts */
void conns_close_all(struct serve_loop *l) RUNS_ON(on_loop);
/* Something will be written to c outside of its own events: it is settled when this turn ends. */
void conn_touch(struct conn *c) RUNS_ON(on_loop);
/* Closes c without another byte; accepts one that is gone. */
void conn_drop(struct conn *c) RUNS_ON(on_loop);
/* An offload of c is back. */
void conn_back(struct conn *c) RUNS_ON(on_loop);
/* Holds the answers from here on until the record at `position` is on disk. */
void conn_hold(struct conn *c, uint64_t position) RUNS_ON(on_loop);
void conns_drain(struct loop *loop,
                 struct loop_task *t); /* the gateway stops: close what is idle */
void conns_leave(struct loop *loop, struct loop_task *t); /* the gateway will stop: say so */
void conns_release_held(struct serve_loop *l) RUNS_ON(on_loop);
void conns_sweep(struct loop *loop, struct loop_timer *t); /* timeouts */

/* --- h2.c: connections that speak HTTP/2 ------------------------------------------------------ */

NODISCARD bool h2_start(struct conn *c) RUNS_ON(on_loop); /* false: no memory */
/* Takes what lies in c->in; requests that are complete are routed. */
void h2_take(struct conn *c) RUNS_ON(on_loop);
void h2_end(struct conn *c) RUNS_ON(on_loop); /* the connection closes */
void h2_sweep(struct conn *c, int64_t now_ns) RUNS_ON(on_loop);

/* --- oip.c: the Open Inference Protocol, in JSON and in protobuf
 * ---------------------------------- */

struct oip_form {
    const struct exchange_form *exchange;
    void *owner;
    NODISCARD int (*read)(struct conn *c, struct served_endpoint *ep, struct tensor *inputs,
                          str body, struct arena *a, struct infer_request *request, struct err *e);
    int64_t timeout_ns; /* of the call; -1: none */
};
/* Reads a request for ep into an exchange of this turn or of a crew; on failure nothing is left of
 * it, and its stream is at hand again. */
NODISCARD int oip_exchange(struct conn *c, struct served_endpoint *ep, struct served_version *named,
                           const struct oip_form *form, str body, struct err *e) RUNS_ON(on_loop);
/* The endpoint of a path and, where the path names one, its version; else answered, and NULL. */
struct served_endpoint *oip_find(struct conn *c, const struct route_match *m,
                                 struct served_version **ret_version) RUNS_ON(on_loop);

/* --- grpc.c: calls; grpc_stream.c: calls that stream ------------------------------------------ */

/* A message, unfolded; the body was bounded before. */
#define GRPC_REQUEST_BYTES_MAX ((size_t)256 << 20)

void grpc_route(struct conn *c, str body) RUNS_ON(on_loop); /* of a call whose body is complete */
void grpc_answer_error(struct conn *c, const struct err *e) RUNS_ON(on_loop);
/* An answer that says nothing but that it was done, or why not. */
void grpc_respond_done(struct http2_stream *st, struct serve_loop *l, int rc, const struct err *e)
    RUNS_ON(on_loop);
void grpc_refuse(struct http2_stream *st) RUNS_ON(on_loop); /* of a stream that HTTP/2 refused */
/* What a message of the call at hand is about: fields 1 and 2 of those that name a model. */
NODISCARD int grpc_model(struct conn *c, str message, struct route_match *ret, struct err *e);
/* Reads one ModelInferRequest of the call at hand into an exchange of that form; counts it when it
 * is refused. */
NODISCARD int grpc_infer(struct conn *c, const struct exchange_form *form, void *owner,
                         const struct route_match *m, str message, struct err *e) RUNS_ON(on_loop);
/* Asks the guard for the call at hand: the codes of its refusals. */
NODISCARD int grpc_admit(struct conn *c, enum permission permission, const struct route_match *m,
                         struct err *e) RUNS_ON(on_loop);
/* A message as it is to be read; it lives as long as the turn. */
NODISCARD int grpc_unfold(struct conn *c, const struct grpc_message *m, str *ret_message,
                          struct err *e) RUNS_ON(on_loop);

void grpc_stream_open(struct conn *c, struct http2_stream *st) RUNS_ON(on_loop);
void grpc_streams_go_on(struct conn *c) RUNS_ON(on_loop);
void grpc_stream_drop(struct grpc_stream *gs) RUNS_ON(on_loop);

/* --- coding.c: gzip and deflate --------------------------------------------------------------- */

struct coder *loop_coder(struct serve_loop *l);
/* The body as the client meant it: INVALID_ARGUMENT, RESOURCE_EXHAUSTED. It lives as long as the
 * turn. */
NODISCARD int body_unfold(struct conn *c, str *body, struct err *e) RUNS_ON(on_loop);
enum coding answer_coding(const struct conn *c); /* what the client of the request at hand takes */
/* True when *body is folded now; it lives until the next use of the loop's coder. */
bool answer_fold(struct serve_loop *l, enum coding coding, str *body) RUNS_ON(on_loop);

/* --- route.c ---------------------------------------------------------------------------------- */

struct route_match {
    str model;                  /* endpoint name */
    str version;                /* empty when the path has none */
    struct served_endpoint *ep; /* of that name, or the only one; NULL: none */
};
/* One request, complete with its body. Answers it or leaves an exchange. */
void route_request(struct conn *c, str body) RUNS_ON(on_loop);

/* Handlers named in routes.def. */
typedef void (*route_fn)(struct conn *c, const struct route_match *m, str body);
#define ROUTE(method, path, permission, handler, help) \
    void handler(struct conn *c, const struct route_match *m, str body);
#include "serve/routes.def"
#undef ROUTE

/* The endpoint of that name in the plan of the loop, or NULL. */
struct served_endpoint *endpoint_named(const struct conn *c, str name);
/* Asks the guard about the request at hand, which is to `ep` if there is one of the name `endpoint`
 * (may be empty). */
bool guard_asked(struct conn *c, enum permission permission, str endpoint,
                 const struct served_endpoint *ep, struct guard_verdict *ret) RUNS_ON(on_loop);
void guard_error(const struct guard_verdict *v, struct err *ret); /* a refusal as an error */
/* ep of that name can answer: NOT_FOUND (it is NULL), UNAVAILABLE. */
NODISCARD int endpoint_check(struct conn *c, str name, struct served_endpoint *ep, struct err *e)
    RUNS_ON(on_loop);
/* endpoint_named() that can answer. */
NODISCARD int endpoint_find(struct conn *c, str name, struct served_endpoint **ret_ep,
                            struct err *e) RUNS_ON(on_loop);
/* That of the match if it can answer, or an answered error and NULL. */
struct served_endpoint *route_endpoint(struct conn *c, const struct route_match *m)
    RUNS_ON(on_loop);
/* Sets id, user and deadline of an exchange from headers; `id` and `user` from the body win. */
void exchange_identify(struct conn *c, struct exchange *x, str id, str user) RUNS_ON(on_loop);
str header_of(const struct conn *c, str name); /* STR_NULL when absent */
/* The body is one that the endpoint takes; RESOURCE_EXHAUSTED. */
NODISCARD int body_check(const struct served_endpoint *ep, str body, struct err *e);
/* JSON text of a value as the plain text that a header or a decoded field would have. */
str plain_text(struct serve_loop *l, str json);
struct buf *answer_begin(struct conn *c); /* the loop's scratch for a body, empty */
/* answer.c: an answer that is one JSON object. Between the two nothing else may use the scratch. */
void answer_object(struct conn *c, struct json_out *ret_object);
void answer_object_end(struct conn *c, struct json_out *o, int status, const char *content_type)
    RUNS_ON(on_loop);
/* Counts and records a refused request of an endpoint. */
void exchange_count_refused(struct conn *c, struct served_endpoint *ep, const struct err *e)
    RUNS_ON(on_loop);
/* The same, and answers it. */
void exchange_refuse(struct conn *c, struct served_endpoint *ep, const struct err *e,
                     const char *content_type, str body) RUNS_ON(on_loop);

/* --- repository.c: what clients of Triton ask for --------------------------------------------- */

NODISCARD int repository_check_load(str model, bool with_config, struct err *e);
struct repository_entry {
    str name, version;
    const char *state, *reason;
};
typedef void (*repository_fn)(void *ctx, const struct repository_entry *entry);
/* Calls fn for every version of every endpoint, once for an endpoint without one; `ready`: only for
 * what can answer. */
void repository_each(const struct served_plan *plan, bool ready, repository_fn fn, void *ctx);
/* The same for versions in memory: of ep and of `only`, where those are given. */
typedef void (*version_fn)(void *ctx, const struct served_endpoint *ep,
                           const struct served_version *v);
void versions_each(const struct served_plan *plan, const struct served_endpoint *ep,
                   const struct served_version *only, version_fn fn, void *ctx);
NODISCARD int shared_memory_refuse(struct err *e);
/* True when every endpoint can answer; else the first that cannot, if there is a plan. */
bool plan_is_ready(const struct served_plan *plan, const struct served_endpoint **ret_missing);

/* --- reading.c: what the outputs of a row mean ------------------------------------------------ */

struct row_reading {
    int32_t cls;  /* index of the class, or -1 */
    str cls_text; /* when the label is text or has no class list */
    int64_t cls_int;
    bool has_int;
    double score;      /* probability of the positive class, or of the class given; NaN = none */
    double confidence; /* probability of the class given; NaN = none */
    double value;      /* regression; NaN = none */
};
void reading_of_row(const struct plan_signature *sig, const struct tensor *outputs, uint32_t row,
                    struct row_reading *ret);

/* --- post.c: what the project does with answers ----------------------------------------------- */

struct row_post {
    str prediction; /* in place of the class or value; STR_NULL: that stands */
    str band;       /* or STR_NULL */
    str rule;       /* that decided: "threshold", "minimum"; or STR_NULL */
    bool hides_scores;
};
/* Of an endpoint with such rules: decides anew by them, and rounds what is read. */
void post_of_row(const struct served_endpoint *ep, const struct tensor *outputs, uint32_t row,
                 struct row_reading *r, struct row_post *ret);
/* The outputs as clients may see them; they are what they were where nothing is to be hidden. */
const struct tensor *post_of_tensors(struct serve_loop *l, struct exchange *x,
                                     const struct tensor *outputs);

/* --- recording.c ------------------------------------------------------------------------------ */

/* Puts the rows of x and their outputs on record; returns the ring position (0: not recorded). */
uint64_t record_exchange(struct record_ring *ring, const struct exchange *x, enum record_kind kind,
                         const struct served_version *v, const struct tensor *inputs,
                         const struct tensor *outputs, int status, uint64_t latency_us) HOT;

/* --- elsewhere.c ------------------------------------------------------------------------------ */

/* Of the models that run in processes or on remote servers; nothing where there are none. */
void elsewhere_write_metrics(struct buf *to, const struct served_plan *plan);

/* --- capacity.c: queues and limits ------------------------------------------------------------ */

void capacity_write_metrics(struct buf *to, const struct served_plan *plan);

/* --- shadow.c --------------------------------------------------------------------------------- */

struct shadow;
struct shadow *gateway_shadow(struct gateway *gw);
struct telemetry *gateway_telemetry(struct gateway *gw); /* may be NULL */
struct guard *gateway_guard(struct gateway *gw);
const struct gateway_config *gateway_config(const struct gateway *gw);
uint64_t gateway_loop_sum(const struct gateway *gw, size_t at); /* of a field of loop_counters */
struct pool *gateway_errands(struct gateway *gw);
void gateway_loop_has_plan(struct gateway *gw); /* a loop took the new plan over */
NODISCARD int shadow_new(struct gateway *gw, struct shadow **ret_shadow, struct err *e);
void shadow_free(struct shadow *s); /* stops its thread; accepts NULL */
/* Copies the rows of x for the shadow version; drops and counts when the queue is full. Any loop.
 */
void shadow_offer(struct shadow *s, struct serve_loop *l, const struct exchange *x,
                  const struct tensor *inputs) HOT;
