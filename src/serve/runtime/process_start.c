/* SPDX-License-Identifier: Apache-2.0 */
/* What a program is started with: its environment, its greeting, its descriptors, its limits. */
#include "base/files.h"
#include "base/log.h"
#include "serve/runtime/process.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELLO_BYTES_MAX ((size_t)2 << 20)

struct env {
    const char **vars;
    size_t n, max;
};

/* A variable that is there already stays: programs differ in which of two they see. */
static void env_add(struct env *env, const char *var)
{
    size_t name = var ? (size_t)(strchrnul(var, '=') - var) + 1 : 0;

    if (!var)
        return;
    for (size_t i = 0; i < env->n; i++)
        if (strncmp(env->vars[i], var, name) == 0)
            return;
    ASSERT(env->n < env->max);
    env->vars[env->n++] = var;
}

static size_t count(const char *const *list)
{
    size_t n = 0;

    while (list[n])
        n++;
    return n;
}

/* The manifest's own first, then what it passes on, then what every program gets. */
static void env_make(struct process_herd *h)
{
    static const char *const passed[] = {"PATH", "LD_LIBRARY_PATH", "TZ"};
    static const char *const fixed[] = {
        "LANG=C.UTF-8",      "PYTHONUNBUFFERED=1",     "PYTHONDONTWRITEBYTECODE=1",
        "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1",
    };
    const struct process_manifest *m = h->manifest;
    size_t own = count(m->env), pass = count(m->pass_env);
    struct env env = {.max = own + pass + ARRAY_LEN(passed) + ARRAY_LEN(fixed) + 3};

    env.vars = arena_zalloc_array(&h->arena, sizeof(*env.vars), env.max + 1);
    env_add(&env, arena_printf(&h->arena, "WEIR_RUNTIME_FD=%d", PROCESS_FD).p);
    for (size_t k = 0; k < own; k++)
        env_add(&env, m->env[k]);
    for (size_t k = 0; k < pass; k++)
        env_add(&env, child_env(m->pass_env[k], &h->arena));
    for (size_t k = 0; k < ARRAY_LEN(passed); k++)
        env_add(&env, child_env(passed[k], &h->arena));
    for (size_t k = 0; k < ARRAY_LEN(fixed); k++)
        env_add(&env, fixed[k]);
    env_add(&env, arena_printf(&h->arena, "HOME=%s", h->tmp).p);
    env_add(&env, arena_printf(&h->arena, "TMPDIR=%s", h->tmp).p);
    h->env = env.vars;
}

static NODISCARD int hello_make(struct process_herd *h, struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    AUTO(arena_done) struct arena a = {0};
    struct json *root;

    arena_init(&a, 0);
    root = json_new_object(&a);
    json_set_int(&a, root, S("protocol"), PROCESS_PROTOCOL);
    json_set_int(&a, root, S("answer_bytes_max"), (int64_t)h->manifest->answer_bytes_max);
    if (h->inputs) {
        json_set(root, S("inputs"), tensor_specs_json(h->inputs, h->input_count, &a));
        json_set(root, S("outputs"), tensor_specs_json(h->outputs, h->output_count, &a));
    }
    buf_init(&text, HELLO_BYTES_MAX);
    buf_init(&h->hello, HELLO_BYTES_MAX);
    json_write(&text, root);
    return tensor_frame_write_json(&h->hello, TENSOR_FRAME_HELLO, 0, buf_str(&text), e);
}

int process_prepare(struct process_herd *h, struct err *e)
{
    env_make(h);
    return hello_make(h, e);
}

static void fds_close(int (*fds)[4])
{
    for (size_t k = 0; k < 4; k++)
        file_close((*fds)[k]);
}

/* fds: our end and the program's of the socket, then of the pipe. Ours are taken. */
static NODISCARD int start_in(struct process_instance *i, int (*fds)[4], struct err *e)
{
    struct process_herd *h = i->herd;
    const struct process_manifest *m = h->manifest;
    struct child_spec spec = {
        .argv = m->command,
        .env = h->env,
        .cwd = h->folder,
        .out = {.fd = (*fds)[3]},
        .err_to_out = true,
        .fds = {{.from = (*fds)[1], .to = PROCESS_FD}},
        .fd_count = 1,
        .limits = {.address_space_bytes = m->memory_bytes,
                   .cpu_seconds = m->cpu_seconds,
                   .open_files = m->open_files},
        .no_network = m->network != PROCESS_NETWORK_ON,
        .need_no_network = m->network == PROCESS_NETWORK_NEVER,
    };

    i->child = (struct child){.pidfd = -1};
    TRY(child_start(&spec, &i->child, e));
    if (spec.no_network && !i->child.network_removed && !h->network_told) {
        h->network_told = true;
        log_event(LOG_WARN, "process.network", "model=%s msg=\"%s\"", h->label,
                  "the system allows no network namespace: the program has the network");
    }
    i->fd = (*fds)[0], (*fds)[0] = -1;
    i->out_fd = (*fds)[2], (*fds)[2] = -1;
    return 0;
}

int process_child_start(struct process_instance *i, struct err *e)
{
    AUTO(fds_close) int fds[4] = {-1, -1, -1, -1};

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return FAIL_ERRNO(e, "making a pair of sockets");
    if (pipe2(fds + 2, O_CLOEXEC) < 0)
        return FAIL_ERRNO(e, "making a pipe");
    return start_in(i, &fds, e);
}
