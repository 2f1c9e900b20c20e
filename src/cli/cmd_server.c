/* SPDX-License-Identifier: Apache-2.0 */
/* `weir up`, `weir gateway`, `weir control`: the processes. */
#include "cli/cli.h"
#include "server/server.h"

#include "base/files.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct option options[] = {
    {"project", required_argument, NULL, 'p'},
    {"listen", required_argument, NULL, 'l'},
    {"control", required_argument, NULL, 'c'},
    {"loops", required_argument, NULL, 'n'},
    {"no-records", no_argument, NULL, 'R'},
    {"no-monitors", no_argument, NULL, 'M'},
    {"no-control", no_argument, NULL, 'C'},
    {"log-format", required_argument, NULL, 'f'},
    {"log-level", required_argument, NULL, 'v'},
    {"handover", required_argument, NULL, 'H'}, /* Weir's own use */
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int usage(const char *name, FILE *to)
{
    fprintf(to,
            "usage: weir %s [--project DIR] [--listen ADDR] [--loops N] [--log-level LEVEL]\n"
            "\n"
            "  --project DIR      folder with weir.yaml (default: this one)\n"
            "  --listen ADDR      host:port or unix:/path instead of what the project says\n"
            "  --loops N          event-loop threads of the gateway (default: one per processor)\n"
            "  --no-records       neither record nor watch what is answered\n"
            "  --no-monitors      record, but do not watch\n"
            "  --no-control       up: run the gateway alone\n"
            "  --log-level LEVEL  debug, info, warn or error (default: info)\n"
            "  --log-format FMT   logfmt or json\n",
            name);
    return to == stdout ? 0 : 2;
}

static bool parse_level(const char *text, enum log_level *ret)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum log_level)i;
            return true;
        }
    return false;
}

/* Returns -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct server_options *o)
{
    uint64_t loops = 0;
    int c;

    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'p':
            o->project_dir = optarg;
            break;
        case 'l':
            o->listen = optarg;
            break;
        case 'c':
            o->control = optarg;
            break;
        case 'n':
            if (!str_to_u64(str_of(optarg), &loops) || loops < 1 || loops > 64) {
                fprintf(stderr, "weir: --loops is '%s', expected 1 to 64\n", optarg);
                return 2;
            }
            o->loops = (uint32_t)loops;
            break;
        case 'R':
            o->no_records = o->no_monitors = true;
            break;
        case 'M':
            o->no_monitors = true;
            break;
        case 'C':
            o->no_control = true;
            break;
        case 'H':
            o->handover = optarg[0] >= '3' && optarg[0] <= '9' && !optarg[1] ? optarg[0] - '0' : 0;
            break;
        case 'f':
            o->log_format = strcmp(optarg, "json") == 0 ? LOG_JSON : LOG_LOGFMT;
            break;
        case 'v':
            if (!parse_level(optarg, &o->log_level)) {
                fprintf(stderr, "weir: --log-level is '%s', expected debug, info, warn or error\n",
                        optarg);
                return 2;
            }
            break;
        case 'h':
            return usage(argv[0], stdout);
        default:
            return usage(argv[0], stderr);
        }
    }
    return optind < argc ? usage(argv[0], stderr) : -1;
}

static int run(int argc, char **argv, int (*process)(const struct server_options *))
{
    struct server_options o = {.project_dir = ".", .log_level = LOG_INFO};
    AUTO(arena_done) struct arena a = {0};
    const char *project;
    int rc;

    arena_init(&a, 0);
    rc = parse(argc, argv, &o);
    if (rc >= 0)
        return rc;
    if (path_real(o.project_dir, &a, &project, NULL)) {
        fprintf(stderr, "weir: there is no folder '%s'\n", o.project_dir);
        return 2;
    }
    o.project_dir = project;
    o.state_dir = path_join(&a, project, ".weir");
    log_setup(o.log_level, o.log_format, argv[0]);
    if (process == server_control_main && o.listen) /* its own address is the control address */
        o.control = o.listen;
    return process(&o);
}

int command_up(int argc, char **argv)
{
    return run(argc, argv, server_up_main);
}

int command_gateway(int argc, char **argv)
{
    return run(argc, argv, server_gateway_main);
}

int command_control(int argc, char **argv)
{
    return run(argc, argv, server_control_main);
}
