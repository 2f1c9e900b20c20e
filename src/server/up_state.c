/* SPDX-License-Identifier: Apache-2.0 */
#include "server/up_state.h"

#include "base/files.h"
#include "base/json.h"
#include "loop/child.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_ENV "WEIR_UP_STATE"
#define TEXT_MAX ((size_t)16 << 10)

/* --- From one program to the next ------------------------------------------------------------- */

static void write_inherited(const struct up_inherited *i, struct buf *to)
{
    struct json_out o;

    jo_begin(&o, to);
    jo_object(&o);
    jo_kint(&o, S("control"), i->control);
    jo_kint(&o, S("gateway"), i->gateway);
    jo_kint(&o, S("link"), i->link);
    jo_kint(&o, S("lock"), i->lock);
    jo_kint(&o, S("patience_ms"), i->patience_ms);
    jo_kint(&o, S("restarts"), i->restarts);
    jo_kint(&o, S("failures"), i->failures);
    jo_kstr(&o, S("listen"), str_of(i->sockets.listen));
    jo_kbool(&o, S("apart"), i->sockets.apart);
    jo_kint(&o, S("file"), (int64_t)i->sockets.file);
    jo_key(&o, S("sockets"));
    jo_array(&o);
    for (size_t k = 0; k < i->sockets.n; k++)
        jo_int(&o, i->sockets.fds[k]);
    jo_array_end(&o);
    jo_object_end(&o);
}

static int64_t int_of(const struct json *root, str name, int64_t def)
{
    return json_int_or(json_get(root, name), def);
}

static void read_inherited(const struct json *root, struct up_inherited *ret)
{
    const struct json *fds = json_get(root, S("sockets"));

    *ret = (struct up_inherited){.control = (pid_t)int_of(root, S("control"), 0),
                                 .gateway = (pid_t)int_of(root, S("gateway"), 0),
                                 .link = (int)int_of(root, S("link"), -1),
                                 .lock = (int)int_of(root, S("lock"), -1),
                                 .patience_ms = int_of(root, S("patience_ms"), 0),
                                 .restarts = int_of(root, S("restarts"), 0),
                                 .failures = int_of(root, S("failures"), 0)};
    ret->sockets.apart = json_bool_or(json_get(root, S("apart")), false);
    ret->sockets.file = (ino_t)int_of(root, S("file"), 0);
    (void)!str_to_z(json_str_or(json_get(root, S("listen")), STR_NULL), ret->sockets.listen,
                    sizeof(ret->sockets.listen));
    for (const struct json *fd = fds && fds->type == JSON_ARRAY ? fds->first : NULL;
         fd && ret->sockets.n < PASS_FDS_MAX; fd = fd->next)
        ret->sockets.fds[ret->sockets.n++] = (int)json_int_or(fd, -1);
}

/* Over exec or not: all that lives on by its number. */
static void set_inheritable(const struct up_inherited *i, bool on)
{
    int flags = on ? 0 : FD_CLOEXEC;

    if (i->link >= 0)
        (void)fcntl(i->link, F_SETFD, flags);
    if (i->lock >= 0)
        (void)fcntl(i->lock, F_SETFD, flags);
    for (size_t k = 0; k < i->sockets.n; k++)
        (void)fcntl(i->sockets.fds[k], F_SETFD, flags);
}

bool up_inherit(struct up_inherited *ret)
{
    AUTO(arena_done) struct arena a = {0};
    const char *text = getenv(STATE_ENV);
    struct json *root;
    bool is_there;

    arena_init(&a, 0);
    is_there = text && json_parse(str_of(text), &a, &root, NULL) == 0;
    if (is_there) {
        read_inherited(root, ret);
        set_inheritable(ret, false);
    }
    (void)unsetenv(STATE_ENV);
    return is_there;
}

static char **own_arguments(struct arena *a, struct err *e)
{
    str bytes, rest;
    char **argv;
    size_t n = 0;

    if (file_read_all("/proc/self/cmdline", (size_t)1 << 20, a, &bytes, e))
        return NULL;
    for (size_t i = 0; i < bytes.n; i++)
        n += bytes.p[i] == 0;
    argv = ARENA_ARRAY(a, char *, n + 2);
    rest = bytes;
    for (size_t i = 0; i < n; i++)
        argv[i] = arena_dupz(a, str_cut(&rest, 0));
    return argv;
}

int up_execute(const char *path, const struct up_inherited *i, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text = {0};
    char **argv;
    int rc;

    arena_init(&a, 0);
    buf_init(&text, TEXT_MAX);
    write_inherited(i, &text);
    argv = own_arguments(&a, e);
    if (!argv)
        return (int)e->code;
    if (text.overflowed || setenv(STATE_ENV, arena_dupz(&a, buf_str(&text)), 1) < 0)
        return FAIL(e, RESOURCE_EXHAUSTED, "the state of the supervisor is too large to pass on");
    set_inheritable(i, true);
    rc = child_become(path, argv, e);
    set_inheritable(i, false);
    (void)unsetenv(STATE_ENV);
    return rc;
}

static bool is_self(const char *path)
{
    struct stat there, here;

    return stat(path, &there) == 0 && stat("/proc/self/exe", &here) == 0 &&
           there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

const char *up_program(struct arena *a)
{
    char path[4096], cwd[4096];
    char **argv = own_arguments(a, NULL);
    ssize_t n;

    if (argv && argv[0] && strchr(argv[0], '/')) {
        const char *said = argv[0];

        if (said[0] != '/' && getcwd(cwd, sizeof(cwd)))
            said = path_join(a, cwd, said);
        if (is_self(said))
            return said;
    }
    n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    return n > 0 ? arena_dupz(a, (str){path, (size_t)n}) : "weir";
}

/* --- For others ------------------------------------------------------------------------------- */

static const char *run_path(struct arena *a, const char *state_dir, const char *name)
{
    return path_join(a, path_join(a, state_dir, "run"), name);
}

int up_lock(const char *state_dir, int *ret_fd, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    TRY(file_make_dirs(path_join(&a, state_dir, "run"), e));
    return file_lock(run_path(&a, state_dir, "up.lock"), ret_fd, e);
}

int up_status_write(const char *state_dir, const struct up_status *st, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(buf_done) struct buf text = {0};
    struct json_out o;

    arena_init(&a, 0);
    buf_init(&text, TEXT_MAX);
    jo_begin(&o, &text);
    jo_object(&o);
    jo_kint(&o, S("pid"), st->pid);
    jo_kint(&o, S("restarts"), st->restarts);
    jo_kint(&o, S("failures"), st->failures);
    jo_kbool(&o, S("restarting"), st->restarting);
    jo_kstr(&o, S("reason"), str_of(st->reason));
    jo_object_end(&o);
    return file_replace(run_path(&a, state_dir, "up.json"), buf_str(&text), e);
}

int up_status_read(const char *state_dir, struct up_status *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    AUTO(file_closep) int lock = -1;
    struct json *root;
    str text;

    arena_init(&a, 0);
    *ret = (struct up_status){0};
    /* Who can lock it is alone, and so the file tells of the past. */
    if (!file_exists(run_path(&a, state_dir, "up.lock")) ||
        file_lock(run_path(&a, state_dir, "up.lock"), &lock, NULL) == 0)
        return FAIL(e, NOT_FOUND, "no `weir up` runs for %s", state_dir);
    TRY(file_read_all(run_path(&a, state_dir, "up.json"), TEXT_MAX, &a, &text, e));
    TRY(json_parse(text, &a, &root, e));
    ret->pid = int_of(root, S("pid"), 0);
    ret->restarts = int_of(root, S("restarts"), 0);
    ret->failures = int_of(root, S("failures"), 0);
    ret->restarting = json_bool_or(json_get(root, S("restarting")), false);
    (void)!str_to_z(
        str_take(json_str_or(json_get(root, S("reason")), STR_NULL), sizeof(ret->reason) - 1),
        ret->reason, sizeof(ret->reason));
    return ret->pid > 1 ? 0 : FAIL(e, DATA_LOSS, "run/up.json names no process");
}
