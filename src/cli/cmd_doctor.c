/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir doctor`: is this machine, and this project, fit to run? One line a check, with what to do
 * about what is not. Exit 1 when a check failed; warnings do not count.
 */
#include "base/files.h"
#include "base/library.h"
#include "base/time.h"
#include "cli/cli.h"
#include "cli/http.h"
#include "cli/paint.h"
#include "cli/session.h"
#include "loop/listen.h"
#include "project/project.h"
#include "store/lake/lake.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DISK_WARN_BYTES ((uint64_t)2 << 30)
#define DISK_FAIL_BYTES ((uint64_t)200 << 20)
#define FILES_WANTED 4096
#define CLOCK_SANE_NS (INT64_C(1735689600) * NS_PER_S) /* 2025-01-01 */

static const struct cli_spec spec = {
    .name = "doctor",
    .usage = "",
    .summary = "check this machine and this project, and say how to mend what is wrong",
    .examples = "  weir doctor\n  weir doctor --json\n",
};

enum verdict { FINE, WARNING, FAILED };

struct doctor {
    struct cli *c;
    struct json *checks; /* [{"check","verdict","found","fix"}] */
    struct project_result project;
    bool project_ok, control_up;
    const char *state;
    size_t failed, warned;
};

static void say(struct doctor *d, enum verdict v, const char *check, str found, const char *fix)
{
    static const char *const words[] = {"ok", "warn", "fail"};
    static const enum paint paints[] = {PAINT_GREEN, PAINT_YELLOW, PAINT_RED};
    static const char *const marks[] = {"✓", "!", "✗"};
    struct json *o = json_push(d->checks, json_new_object(&d->c->a));

    d->failed += v == FAILED;
    d->warned += v == WARNING;
    json_set_str(&d->c->a, o, S("check"), str_of(check));
    json_set_str(&d->c->a, o, S("verdict"), str_of(words[v]));
    json_set_str(&d->c->a, o, S("found"), found);
    if (v != FINE)
        json_set_str(&d->c->a, o, S("fix"), str_of(fix));
    if (d->c->opt.json)
        return;
    paint_text(&d->c->out, d->c->color, paints[v],
               arena_printf(&d->c->a, "%s %-4s", marks[v], words[v]));
    buf_printf(&d->c->out, "  %-16s " STR_F "\n", check, STR_A(found));
    if (v != FINE)
        buf_printf(&d->c->out, "                          %s\n", fix);
}

static str copied(struct doctor *d, const struct err *e)
{
    return arena_dup(&d->c->a, str_of(e->msg));
}

/* --- The machine ------------------------------------------------------------------------------ */

static void check_libraries(struct doctor *d)
{
    static const char *const names[] = {"libonnxruntime.so.1", NULL};
    AUTO(lake_closep) struct lake *lake = NULL;
    void *library;
    struct err e;

    if (!library_open("ONNX Runtime", names, &library, &e))
        say(d, FINE, "ONNX Runtime", S("found"), "");
    else
        say(d, FAILED, "ONNX Runtime", copied(d, &e),
            "run scripts/bootstrap, or set WEIR_DEPS_LIB to the folder that holds it");
    if (lake_open(&(struct lake_config){0}, &lake, &e))
        say(d, FAILED, "DuckDB", copied(d, &e),
            "run scripts/bootstrap, or set WEIR_DEPS_LIB to the folder that holds libduckdb.so");
    else
        say(d, FINE, "DuckDB", str_of(lake_version()), "");
}

static void check_machine(struct doctor *d)
{
    int64_t wall = time_wall_ns();
    struct rlimit files;
    char now[TIME_ISO_SIZE];

    time_iso(wall, now);
    if (wall < CLOCK_SANE_NS)
        say(d, FAILED, "clock", arena_dup(&d->c->a, str_of(now)),
            "the date is in the past: start time synchronisation");
    else
        say(d, FINE, "clock", arena_dup(&d->c->a, str_of(now)), "");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        str found =
            arena_printf(&d->c->a, "%llu open files allowed", (unsigned long long)files.rlim_cur);

        if (files.rlim_cur < FILES_WANTED)
            say(d, WARNING, "open files", found, "raise it for many connections: ulimit -n 65536");
        else
            say(d, FINE, "open files", found, "");
    }
}

/* --- The project ------------------------------------------------------------------------------ */

static void check_project(struct doctor *d)
{
    struct err e;

    if (cli_project_find(d->c, &e)) {
        say(d, FAILED, "project", copied(d, &e), "weir init");
        return;
    }
    d->state = path_join(&d->c->a, d->c->project_dir, ".weir");
    if (project_load(d->c->project_dir, &d->c->a, &d->project, &e)) {
        say(d, FAILED, "weir.yaml", copied(d, &e), "weir plan shows all problems with their lines");
        return;
    }
    d->project_ok = true;
    say(d, FINE, "weir.yaml", arena_printf(&d->c->a, "%.12s", d->project.hash), "");
}

static void check_state(struct doctor *d)
{
    struct statvfs fs;
    const char *probe;
    struct err e;

    if (!d->state)
        return;
    probe = path_join(&d->c->a, d->state, "doctor.tmp");
    if (file_make_dirs(d->state, &e) || file_replace(probe, S("x"), &e) || file_remove(probe, &e))
        say(d, FAILED, "state folder", copied(d, &e), "let this user write there");
    else
        say(d, FINE, "state folder", str_of(d->state), "");
    if (statvfs(d->state, &fs) == 0) {
        uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
        str found = arena_printf(&d->c->a, "%.1f GiB free", (double)left / (double)(1u << 30));

        say(d,
            left < DISK_FAIL_BYTES   ? FAILED
            : left < DISK_WARN_BYTES ? WARNING
                                     : FINE,
            "disk", found, "make room: records and model versions are kept here");
    }
}

/* --- What runs -------------------------------------------------------------------------------- */

static void check_control(struct doctor *d)
{
    struct json *status, *journal;
    const struct json *gateways;
    struct err e;

    if (!d->state)
        return;
    if (cli_call(d->c, "/api/v1/status", NULL, &status, &e)) {
        say(d, WARNING, "control", copied(d, &e), "weir up");
        return;
    }
    d->control_up = true;
    if (str_eq(json_str_or(json_get(status, S("version")), S("")), S(WEIR_VERSION)))
        say(d, FINE, "control", S("version " WEIR_VERSION), "");
    else
        say(d, WARNING, "control",
            arena_printf(&d->c->a, "version " STR_F ", this command is " WEIR_VERSION,
                         STR_A(json_str_or(json_get(status, S("version")), S("?")))),
            "start it again: weir up");
    gateways = json_get(status, S("gateways"));
    if (gateways && gateways->type == JSON_ARRAY && gateways->count)
        say(d, FINE, "gateways", arena_printf(&d->c->a, "%zu connected", gateways->count), "");
    else
        say(d, WARNING, "gateways", S("none is connected"), "weir up starts one");
    if (cli_call(d->c, "/api/v1/journal/verify", NULL, &journal, &e))
        say(d, FAILED, "journal", copied(d, &e), "look at the log of control");
    else if (!json_bool_or(json_get(journal, S("ok")), false))
        say(d, FAILED, "journal",
            json_str_or(json_get(journal, S("message")), S("does not verify")),
            "facts were changed behind Weir's back: restore .weir/meta.db from a copy");
    else
        say(d, FINE, "journal",
            arena_printf(&d->c->a, "%lld facts verify",
                         (long long)json_int_or(json_get(journal, S("size")), 0)),
            "");
}

/* The address must be ours to take, or be answered by our own process. */
static void check_port(struct doctor *d, const char *name, const char *path, const char *target)
{
    const char *text = arena_dupz(&d->c->a, json_str_or(json_path(d->project.norm, path), S("")));
    struct cli_http_request req = {.address = text, .target = target, .timeout_ns = 2 * NS_PER_S};
    struct cli_http_response res;
    struct addr address;
    struct err e;
    int fd = -1;

    if (!text[0])
        return;
    if (addr_parse(str_of(text), &address, &e)) {
        say(d, FAILED, name, copied(d, &e), "correct it in weir.yaml");
        return;
    }
    if (!listen_open(&address, NULL, &fd, &e)) {
        close(fd);
        say(d, d->control_up ? WARNING : FINE, name,
            arena_printf(&d->c->a, "%s is free%s", text,
                         d->control_up ? ", though control runs" : ""),
            "weir up");
        return;
    }
    if (!cli_http(&req, &d->c->a, &res, &e) && res.status < 500)
        say(d, FINE, name, arena_printf(&d->c->a, "%s answers", text), "");
    else
        say(d, FAILED, name,
            arena_printf(&d->c->a, "%s is taken and does not answer as Weir", text),
            "stop what uses it, or choose another address in weir.yaml");
}

static int run(struct cli *c, struct err *e)
{
    struct doctor d = {.c = c, .checks = json_new_array(&c->a)};
    struct json *o = json_new_object(&c->a);

    (void)e;
    check_machine(&d);
    check_libraries(&d);
    check_project(&d);
    check_state(&d);
    check_control(&d);
    if (d.project_ok) {
        check_port(&d, "gateway address", "gateway.listen", "/healthz");
        check_port(&d, "control address", "control.listen", "/api/v1/routes");
    }
    if (c->opt.json) {
        json_set(o, S("checks"), d.checks);
        cli_json(c, o);
    }
    cli_flush(c);
    if (d.failed || d.warned)
        cli_note("%zu failed, %zu to look at", d.failed, d.warned);
    else
        cli_note("all is well");
    c->exit_status = d.failed ? 1 : 0;
    return 0;
}

int command_doctor(int argc, char **argv)
{
    return cli_main(&spec, argc, argv, NULL, run);
}
