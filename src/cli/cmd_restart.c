/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir restart` and `weir drain`: what an operator asks of a running `weir up`. Both send a signal
 * to the supervisor, whose pid lies in the state directory, and wait until it has done what was
 * asked, so that a script knows.
 */
#include "cli/cli.h"
#include "cli/session.h"
#include "server/up_state.h"

#include "base/files.h"
#include "base/time.h"

#include <errno.h>
#include <signal.h>

#define LOOK_NS (50 * NS_PER_MS)

struct wait_options {
    int64_t timeout_s;
};

static const struct cli_option options[] = {
    {"timeout", 't', CLI_INT, "SECONDS", "how long to wait for the end of it (default 600)",
     offsetof(struct wait_options, timeout_s)},
};
static const struct cli_spec restart_spec = {
    .name = "restart",
    .usage = "",
    .summary =
        "put the program that lies on disk now in place of the running one; nobody is refused",
    .examples = "  weir restart\n  weir restart --project /srv/orders --timeout 60\n",
    .notes =
        "The new gateway is ready before the old one stops accepting. One that does not come up "
        "changes nothing: exit status 1.\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
};
static const struct cli_spec drain_spec = {
    .name = "drain",
    .usage = "",
    .summary =
        "stop a running `weir up` once all that is under way has been answered, and wait for it",
    .examples = "  weir drain\n",
    .notes =
        "Before that the gateway says at /readyz for gateway.drain_announce that it will stop; "
        "gateway.drain_timeout bounds what is under way.\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
};

struct wait {
    const char *state_dir;
    int64_t start_ns, end_ns;
    struct up_status before, now;
};

static NODISCARD int begin(struct cli *c, struct wait *w, int signo, struct err *e)
{
    const struct wait_options *o = c->values;

    TRY(cli_project_find(c, e));
    *w = (struct wait){.start_ns = time_mono_ns()};
    w->end_ns = w->start_ns + (o->timeout_s ? o->timeout_s : 600) * NS_PER_S;
    w->state_dir = path_join(&c->a, c->project_dir, ".weir");
    TRY(up_status_read(w->state_dir, &w->before, e));
    if (w->before.restarting && signo == SIGUSR2)
        return FAIL(e, FAILED_PRECONDITION, "a restart is under way: wait until it is done");
    if (kill((pid_t)w->before.pid, signo) == 0)
        return 0;
    if (errno == EPERM)
        return FAIL(e, PERMISSION_DENIED, "`weir up` (process %lld) belongs to another user",
                    (long long)w->before.pid);
    return FAIL(e, NOT_FOUND, "`weir up` (process %lld) has just ended", (long long)w->before.pid);
}

static NODISCARD int too_long(const struct wait *w, struct err *e)
{
    if (time_mono_ns() < w->end_ns)
        return 0;
    return FAIL(e, DEADLINE_EXCEEDED, "not done within %lld s: look into the log of `weir up`",
                (long long)((w->end_ns - w->start_ns) / NS_PER_S));
}

static void report(struct cli *c, const struct wait *w, const char *what)
{
    double seconds = (double)(time_mono_ns() - w->start_ns) / 1e9;
    struct json *o = json_new_object(&c->a);

    if (!c->opt.json) {
        buf_printf(&c->out, "%s in %.1f s\n", what, seconds);
        return;
    }
    json_set(o, S("done"), json_new_str(&c->a, str_of(what)));
    json_set_int(&c->a, o, S("pid"), w->before.pid);
    json_set(o, S("seconds"), json_new_real(&c->a, seconds));
    cli_json(c, o);
}

static int restart(struct cli *c, struct err *e)
{
    struct wait w;

    TRY(begin(c, &w, SIGUSR2, e));
    for (;;) {
        TRY(too_long(&w, e));
        time_sleep(LOOK_NS);
        TRY(up_status_read(w.state_dir, &w.now, e));
        if (w.now.failures > w.before.failures)
            return FAIL(e, ABORTED,
                        "the new gateway did not come up (%s): the old one serves on; the log of "
                        "`weir up` says why",
                        w.now.reason);
        if (w.now.restarts > w.before.restarts)
            break;
    }
    report(c, &w, "restarted");
    return 0;
}

static int drain(struct cli *c, struct err *e)
{
    struct wait w;

    TRY(begin(c, &w, SIGTERM, e));
    while (up_status_read(w.state_dir, &w.now, e) != CODE_NOT_FOUND) {
        TRY(too_long(&w, e));
        time_sleep(LOOK_NS);
    }
    report(c, &w, "stopped");
    return 0;
}

int command_restart(int argc, char **argv)
{
    struct wait_options o = {0};

    return cli_main(&restart_spec, argc, argv, &o, restart);
}

int command_drain(int argc, char **argv)
{
    struct wait_options o = {0};

    return cli_main(&drain_spec, argc, argv, &o, drain);
}
