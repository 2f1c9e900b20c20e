/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Platform "process": a program of the user answers. Its folder comes as a pack (pack.h), is
 * unpacked into a folder of this load's own below the work folder, and goes with the model.
 *
 * A run is: take an idle instance, send the inputs as one frame, read one frame, give the instance
 * back. All of it on the calling thread, which waits: the engine is `blocking`. The answer is read
 * into memory of the slot and the outputs are laid over it, so that nothing is copied.
 *
 * What went wrong decides who pays: a wrong answer in a good frame fails the request; a stream that
 * cannot be trusted any more costs the program its life; a late answer costs it the grace.
 *
 * Loading does not fail because the program does, unless asked to (must_start, by the probe) or
 * when nobody else knows the signature: one broken program must not keep a gateway from its plan.
 */
#include "serve/runtime/process.h"

#include "base/files.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"
#include "base/time.h"
#include "serve/runtime/pack.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define FOLDER_PREFIX "process-"
#define LOCK_SUFFIX ".lock"
#define ARENA_BYTES_MAX \
    ((size_t)256 << 20)              /* of the header's tree and lists of texts of an answer */
#define KEEP_BYTES ((size_t)1 << 20) /* of an answer's memory, between runs */

/* runtime_model.state */
struct process_model {
    struct process_manifest manifest;
    struct process_herd *herd; /* owned */
    const char *folder, *lock_path;
    int lock_fd;
};

/* runtime_slot.state */
struct process_slot {
    _Atomic int run_state; /* enum process_run_state */
    int wake_fd;           /* owned: an eventfd, for cancel */
    struct buf question;
    char *answer; /* owned */
    size_t answer_cap;
    struct arena arena; /* owned; reset by each run */
};

/* --- Loading ---------------------------------------------------------------------------------- */

/* Folders of loads that a killed gateway left behind: nobody holds their lock. */
static void sweep(const char *work, struct arena *a)
{
    struct err e;
    str *names;
    size_t n;

    if (file_list(work, a, &names, &n, &e))
        return;
    for (size_t i = 0; i < n; i++) {
        AUTO(file_closep) int fd = -1;
        const char *lock = path_join(a, work, names[i].p);
        str folder = str_of(lock);

        if (!str_starts(names[i], S(FOLDER_PREFIX)) || !str_ends(names[i], S(LOCK_SUFFIX)) ||
            file_lock(lock, &fd, &e))
            continue;
        folder.n -= sizeof(LOCK_SUFFIX) - 1;
        if (file_remove_tree(arena_dupz(a, folder), &e) || file_remove(lock, &e))
            log_err("process.sweep", &e);
    }
}

static NODISCARD int folder_make(struct runtime_model *m, struct process_model *pm, struct err *e)
{
    const char *work = m->options.work_dir ? m->options.work_dir : ".", *real;
    char id[UUID_SIZE];

    TRY(file_make_dirs(work, e));
    TRY(path_real(work, &m->arena, &real, e));
    sweep(real, &m->arena);
    uuid_v7(time_wall_ns(), id);
    pm->folder = path_join(&m->arena, real, arena_printf(&m->arena, FOLDER_PREFIX "%s", id).p);
    pm->lock_path = arena_printf(&m->arena, "%s" LOCK_SUFFIX, pm->folder).p;
    TRY(file_lock(pm->lock_path, &pm->lock_fd, e));
    TRY(file_make_dirs(path_join(&m->arena, pm->folder, "files"), e));
    return file_make_dirs(path_join(&m->arena, pm->folder, "tmp"), e);
}

static NODISCARD int manifest_load(struct runtime_model *m, const char *path,
                                   struct process_manifest *ret, struct err *e)
{
    struct json *root;
    str text;

    TRY(pack_manifest(path, &m->arena, &text, e));
    if (json_parse(text, &m->arena, &root, e) || process_manifest_read(root, &m->arena, ret, e))
        return err_context(e, PACK_MANIFEST);
    return 0;
}

/* What people find in the log: the first digits of the blob's hash. */
static const char *label_of(const char *path, struct arena *a)
{
    str rest = str_of(path), folder = STR_NULL, name = STR_NULL;

    while (rest.p) {
        folder = name;
        name = str_cut(&rest, '/');
    }
    return arena_printf(a, STR_F STR_F, STR_A(folder.n == 2 ? folder : S("")),
                        STR_A(str_take(name, 12)))
        .p;
}

static NODISCARD int first_start(struct runtime_model *m, struct process_model *pm, struct err *e)
{
    struct process_herd *h = pm->herd;
    bool is_ready = process_herd_wait(h, time_mono_ns() + pm->manifest.start_ns + NS_PER_S);
    char reason[sizeof(h->reason)];

    pthread_mutex_lock(&h->mutex);
    m->inputs = h->inputs, m->input_count = h->input_count;
    m->outputs = h->outputs, m->output_count = h->output_count;
    memcpy(reason, h->reason, sizeof(reason));
    pthread_mutex_unlock(&h->mutex);
    if (is_ready || (!m->options.must_start && m->inputs))
        return 0;
    return FAIL(e, FAILED_PRECONDITION, "the program '%s' did not start: %s",
                pm->manifest.command[0], reason[0] ? reason : "it was not ready in time");
}

static int process_load(struct runtime_model *m, const char *path, struct err *e)
{
    struct process_model *pm = ARENA_NEW(&m->arena, struct process_model);
    const char *files, *tmp;

    pm->lock_fd = -1;
    m->state = pm;
    TRY(manifest_load(m, path, &pm->manifest, e));
    TRY(folder_make(m, pm, e));
    files = path_join(&m->arena, pm->folder, "files");
    tmp = path_join(&m->arena, pm->folder, "tmp");
    TRY(pack_unpack(path, files, e));
    TRY(process_herd_new(&pm->manifest, label_of(path, &m->arena), files, tmp, &pm->herd, e));
    return first_start(m, pm, e);
}

static void process_unload(struct runtime_model *m)
{
    struct process_model *pm = m->state;
    struct err e;

    if (!pm)
        return;
    process_herd_free(pm->herd);
    if (pm->lock_fd < 0)
        return;
    if (file_remove_tree(pm->folder, &e) || file_remove(pm->lock_path, &e))
        log_err("process.unload", &e);
    file_close(pm->lock_fd);
}

/* --- Slots ------------------------------------------------------------------------------------ */

static struct process_model *model_of(const struct runtime_slot *s)
{
    return s->model->state;
}

static int process_slot_init(struct runtime_slot *s, struct err *e)
{
    struct process_slot *st = ARENA_NEW(&s->arena, struct process_slot);

    if (!st)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for the slot of a model");
    st->wake_fd = -1;
    s->state = st;
    buf_init(&st->question, RUNTIME_SLOT_BYTES_MAX + 2 * (size_t)TENSOR_FRAME_HEADER_BYTES_MAX);
    arena_init(&st->arena, ARENA_BYTES_MAX);
    st->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (st->wake_fd < 0)
        return FAIL_ERRNO(e, "making an eventfd");
    return 0;
}

static void process_slot_done(struct runtime_slot *s)
{
    struct process_slot *st = s->state;

    if (!st)
        return;
    file_close(st->wake_fd);
    buf_done(&st->question);
    mem_free(st->answer);
    arena_done(&st->arena);
}

/* --- A run ------------------------------------------------------------------------------------ */

struct exchange {
    struct runtime_slot *slot;
    struct process_slot *st;
    struct process_instance *i;
    int64_t deadline_ns;
    uint64_t id;
    bool sent; /* all of the question */
};

/* Until the socket is ready: 0, DEADLINE_EXCEEDED or CANCELLED. */
static NODISCARD int wait_for(struct exchange *x, short events, struct err *e)
{
    struct pollfd fds[2] = {{.fd = x->i->fd, .events = events},
                            {.fd = x->st->wake_fd, .events = POLLIN}};

    for (;;) {
        int64_t left_ns = MAX(x->deadline_ns - time_mono_ns(), 0);
        struct timespec ts = {.tv_sec = left_ns / NS_PER_S, .tv_nsec = left_ns % NS_PER_S};
        eventfd_t dropped;
        int n;

        if (atomic_load(&x->st->run_state) == PROCESS_RUN_CANCELLED)
            return FAIL(e, CANCELLED, "the run of the model was cancelled");
        n = ppoll(fds, 2, &ts, NULL);
        if (n > 0 && fds[0].revents)
            return 0;
        if (n > 0) /* of this run, or the word for an earlier one that came too late */
            (void)eventfd_read(x->st->wake_fd, &dropped);
        else if (n == 0 || errno != EINTR)
            return FAIL(e, DEADLINE_EXCEEDED, "the program of the model did not answer in time");
    }
}

static NODISCARD int gone(struct err *e)
{
    return FAIL(e, UNAVAILABLE, "the program of the model ended while it had the request");
}

static NODISCARD int question_send(struct exchange *x, struct err *e)
{
    const char *at = x->st->question.p;
    size_t left = x->st->question.n;

    while (left) {
        ssize_t n = send(x->i->fd, at, left, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            at += n;
            left -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            TRY(wait_for(x, POLLOUT, e));
        } else if (n < 0 && errno != EINTR) {
            return gone(e);
        }
    }
    x->sent = true;
    return 0;
}

/* Room for the answer's data: what an earlier one needed is kept unless it is far too much. */
static NODISCARD int answer_room(struct process_slot *st, uint64_t bytes, struct err *e)
{
    if (bytes <= st->answer_cap && (st->answer_cap <= KEEP_BYTES || bytes > st->answer_cap / 4))
        return 0;
    mem_free(st->answer);
    st->answer_cap = 0;
    st->answer = mem_try_alloc(MAX((size_t)bytes, (size_t)TENSOR_FRAME_ALIGN));
    if (!st->answer)
        return FAIL(e, RESOURCE_EXHAUSTED, "no memory for an answer of %llu bytes",
                    (unsigned long long)bytes);
    st->answer_cap = MAX((size_t)bytes, (size_t)TENSOR_FRAME_ALIGN);
    return 0;
}

/* Reads one frame; what is left of it when this fails is the herd's to read away. */
static NODISCARD int answer_read(struct exchange *x, const char **ret_verdict, struct err *e)
{
    struct process_reader *r = &x->i->reader;

    for (;;)
        switch (process_read(r, x->i->fd, e)) {
        case PROCESS_MORE:
            TRY(wait_for(x, POLLIN, e));
            break;
        case PROCESS_HEADER:
            if (r->head.id != x->id ||
                (r->head.kind != TENSOR_FRAME_ANSWER && r->head.kind != TENSOR_FRAME_ERROR)) {
                *ret_verdict = "it answered what nobody had asked";
                return FAIL(e, INTERNAL, "the program of the model broke the protocol");
            }
            TRY(answer_room(x->st, r->head.data_bytes, e));
            r->data = x->st->answer;
            break;
        case PROCESS_FRAME:
            return 0;
        case PROCESS_END:
            return gone(e);
        case PROCESS_BROKEN:
            *ret_verdict = "it sent what is no frame of the protocol";
            return FAIL(e, INTERNAL, "the program of the model broke the protocol");
        }
}

/* The words of a program are for the client, but only plain ones, and not many. */
static void plain(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
}

static NODISCARD int error_of(const struct json *root, struct err *e)
{
    static const enum code allowed[] = {CODE_INVALID_ARGUMENT,   CODE_OUT_OF_RANGE,
                                        CODE_RESOURCE_EXHAUSTED, CODE_UNAVAILABLE,
                                        CODE_UNIMPLEMENTED,      CODE_FAILED_PRECONDITION};
    str code = json_str_or(json_get(root, S("code")), S("INTERNAL"));
    str message = json_str_or(json_get(root, S("message")), S("it gave no reason"));
    enum code use = CODE_INTERNAL;
    char text[400];

    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (str_eqz(code, code_name(allowed[i])))
            use = allowed[i];
    message = str_take(message, sizeof(text) - 1);
    if (!str_to_z(message, text, sizeof(text)))
        (void)!str_to_z(S("?"), text, sizeof(text));
    plain(text);
    return err_nonzero(err_fill(e, use, ERR_AT, "the model failed: %s", text));
}

static NODISCARD int answer_take(struct exchange *x, struct err *e)
{
    struct process_reader *r = &x->i->reader;
    struct runtime_slot *s = x->slot;
    struct json *root;

    if (json_parse(process_reader_header(r), &x->st->arena, &root, e)) {
        e->code = e->code == CODE_RESOURCE_EXHAUSTED ? e->code : CODE_INTERNAL;
        return err_context(e, "the answer of the model's program");
    }
    if (r->head.kind == TENSOR_FRAME_ERROR)
        return error_of(root, e);
    if (tensor_frame_tensors(root, (str){x->st->answer, (size_t)r->head.data_bytes}, s->outputs,
                             s->model->output_count, &x->st->arena, e)) {
        e->code = e->code == CODE_RESOURCE_EXHAUSTED ? e->code : CODE_INTERNAL;
        return err_context(e, "the answer of the model's program");
    }
    return 0;
}

static NODISCARD int exchange(struct exchange *x, struct err *e)
{
    int64_t timeout_ms = MAX(x->deadline_ns - time_mono_ns(), 0) / NS_PER_MS;
    enum process_return how = PROCESS_RETURN_OK;
    const char *verdict = NULL;
    int rc;

    buf_clear(&x->st->question);
    rc = tensor_frame_write_run(&x->st->question, x->id, x->slot->inputs,
                                x->slot->model->input_count, timeout_ms, e);
    if (rc) { /* nothing was sent: the instance is as it was */
        process_herd_return(x->i, PROCESS_RETURN_OK, NULL);
        return rc;
    }
    rc = question_send(x, e);
    if (!rc)
        rc = answer_read(x, &verdict, e);
    if (rc) {
        bool waits =
            rc == CODE_DEADLINE_EXCEEDED || rc == CODE_CANCELLED || rc == CODE_RESOURCE_EXHAUSTED;

        how = waits && x->sent ? PROCESS_RETURN_LATE : PROCESS_RETURN_BAD;
        if (waits && !x->sent)
            verdict = "it did not take all of a request in time";
    } else {
        rc = answer_take(x, e);
    }
    if (how == PROCESS_RETURN_LATE) {
        x->i->late_id = x->id;
        x->i->reader.data = NULL; /* the slot's memory is not the herd's */
    }
    process_herd_return(x->i, how, verdict);
    return rc;
}

static NODISCARD int run(struct runtime_slot *s, int64_t deadline_ns, struct err *e)
{
    struct process_model *pm = model_of(s);
    struct process_slot *st = s->state;
    struct exchange x = {.slot = s, .st = st};
    int64_t now_ns = time_mono_ns();
    int64_t take_ns =
        deadline_ns ? deadline_ns : now_ns + pm->manifest.start_ns + pm->manifest.run_ns;

    arena_reset(&st->arena);
    TRY(process_herd_take(pm->herd, take_ns, &st->run_state, &x.i, e));
    x.deadline_ns = time_mono_ns() + pm->manifest.run_ns;
    if (deadline_ns)
        x.deadline_ns = MIN(x.deadline_ns, deadline_ns);
    x.id = ++x.i->next_id;
    return exchange(&x, e);
}

static int process_run(struct runtime_slot *s, struct err *e)
{
    struct process_slot *st = s->state;
    int rc;

    atomic_store(&st->run_state, PROCESS_RUN_RUNNING);
    rc = run(s, s->deadline_ns, e);
    atomic_store(&st->run_state, PROCESS_RUN_IDLE);
    return rc;
}

static void process_cancel(struct runtime_slot *s)
{
    struct process_slot *st = s->state;
    int was = PROCESS_RUN_RUNNING;

    if (!atomic_compare_exchange_strong(&st->run_state, &was, PROCESS_RUN_CANCELLED))
        return;
    (void)eventfd_write(st->wake_fd, 1);
    process_herd_wake(model_of(s)->herd);
}

static void process_stat(struct runtime_model *m, struct runtime_stat *ret)
{
    struct process_herd *h = ((struct process_model *)m->state)->herd;

    pthread_mutex_lock(&h->mutex);
    ret->instances = h->instance_count;
    ret->starts = h->starts;
    ret->ends = h->ends;
    for (uint32_t i = 0; i < h->instance_count; i++) {
        ret->ready +=
            h->instances[i].state == PROCESS_IDLE || h->instances[i].state == PROCESS_BUSY;
        ret->broken += h->instances[i].is_broken;
    }
    pthread_mutex_unlock(&h->mutex);
}

const struct runtime_engine runtime_process = {
    .platform = "process",
    .blocking = true,
    .load = process_load,
    .unload = process_unload,
    .slot_init = process_slot_init,
    .slot_done = process_slot_done,
    .run = process_run,
    .cancel = process_cancel,
    .stat = process_stat,
};
