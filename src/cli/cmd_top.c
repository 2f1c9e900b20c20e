/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `weir top`: what the gateways do now. Each tick asks their /metrics, and control for its status
 * where it runs, and shows what lies between two answers.
 *
 * A gateway that does not answer is said so on the screen and asked again: a tool for bad times
 * must not end when they begin. Only the first look fails the command.
 */
#include "base/files.h"
#include "base/time.h"
#include "cli/cli.h"
#include "cli/http.h"
#include "cli/screen.h"
#include "cli/session.h"
#include "cli/top_view.h"

#include <signal.h>
#include <unistd.h>

#define ASK_NS (2 * NS_PER_S)
#define INTERVAL_MIN_NS (100 * NS_PER_MS)
#define INTERVAL_MAX_NS (3600 * NS_PER_S)
#define GATEWAYS_MAX 64

struct top_options {
    struct cli_list gateways;
    const char *interval, *sort, *key_file;
    bool once;
};

#define AT(member) offsetof(struct top_options, member)
static const struct cli_option options[] = {
    {"gateway", 'g', CLI_LIST, "ADDR",
     "a gateway; may be repeated (default: those of the project, or 127.0.0.1:8080)", AT(gateways)},
    {"interval", 'i', CLI_TEXT, "TIME", "between two looks, such as 500ms (default: 2s)",
     AT(interval)},
    {"sort", 's', CLI_TEXT, "ORDER", "requests, errors, p99, p50, waiting or name", AT(sort)},
    {"once", '1', CLI_FLAG, NULL, "look twice, show what lies between, and end", AT(once)},
    {"key-file", 0, CLI_TEXT, "FILE", "holds an API key or a token that the gateway takes",
     AT(key_file)},
};
#undef AT

static const struct cli_spec spec = {
    .name = "top",
    .usage = "",
    .summary = "requests, latency, queues and breakers of each endpoint, live",
    .examples = "  weir top\n  weir top --sort p99 --interval 500ms\n"
                "  weir top --once --json | jq '.series[].p99_s'\n"
                "  weir top -g 10.0.0.1:8080 -g 10.0.0.2:8080\n",
    .notes =
        "Without a terminal a table is printed once in each interval; with --json, one object "
        "in a line.\nQuantiles are read off the buckets of the histograms, as Prometheus does.\n",
    .options = options,
    .option_count = ARRAY_LEN(options),
};

struct top {
    struct cli *c;
    const struct top_options *o;
    struct arena arenas[2], figures_arena; /* of the looks, in turn; of what is shown */
    struct top_shot shots[2];
    uint32_t latest;
    const char *addresses[GATEWAYS_MAX];
    size_t address_count;
    str key_line;
    struct json *status; /* of the latest look; or NULL */
    struct err trouble;  /* of the latest look; code OK: none */
    struct top_figures figures;
    double history[TOP_HISTORY];
    size_t history_count, scroll;
    enum top_sort sort;
    int64_t interval_ns;
    bool paused;
    str title;
};

/* --- Looking ---------------------------------------------------------------------------------- */

static struct arena *latest_arena(struct top *t)
{
    return &t->arenas[t->latest];
}

static NODISCARD int ask_gateway(struct top *t, const char *address, struct err *e)
{
    struct cli_http_request req = {
        .address = address, .target = "/metrics", .extra = t->key_line, .timeout_ns = ASK_NS};
    struct cli_http_response res;

    TRY(cli_http(&req, latest_arena(t), &res, e));
    if (res.status == 401 || res.status == 403)
        return FAIL(e, PERMISSION_DENIED,
                    "%s wants a key whose role may read metrics: give --key-file", address);
    if (res.status != 200)
        return FAIL(e, UNAVAILABLE, "%s answers %d to /metrics", address, res.status);
    if (top_shot_add(&t->shots[t->latest], res.body, e))
        return err_context(e, "%s", address);
    return 0;
}

/* Control is asked where it runs; its silence is no trouble. */
static void ask_control(struct top *t)
{
    struct cli_http_request req = {.target = "/api/v1/status", .timeout_ns = ASK_NS};
    struct cli_http_response res;
    struct arena *a = latest_arena(t);
    struct err unused;

    t->status = NULL;
    if (!t->c->project_dir)
        return;
    req.address = arena_printf(a, "unix:%s/.weir/run/control.sock", t->c->project_dir).p;
    if (cli_http(&req, a, &res, &unused) || res.status != 200 ||
        json_parse(res.body, a, &t->status, &unused))
        t->status = NULL;
}

static void add_address(struct top *t, const char *address)
{
    if (t->address_count < GATEWAYS_MAX)
        t->addresses[t->address_count++] = address;
}

/* Those that control knows, while none was named. */
static void find_gateways(struct top *t)
{
    const struct json *list = json_get(t->status, S("gateways"));

    if (t->o->gateways.n)
        return;
    t->address_count = 0;
    if (json_is_container(list))
        JSON_EACH (g, list) {
            int64_t port = json_int_or(json_get(g, S("port")), 0);

            if (port)
                add_address(t, arena_printf(latest_arena(t), "127.0.0.1:%lld", (long long)port).p);
        }
    if (!t->address_count)
        add_address(t, "127.0.0.1:8080");
}

/* A new look. Fails when no gateway answers. */
static NODISCARD int look(struct top *t, struct err *e)
{
    struct err last = {.code = CODE_OK};

    t->latest ^= 1;
    arena_reset(latest_arena(t));
    top_shot_begin(&t->shots[t->latest], latest_arena(t), time_mono_ns());
    ask_control(t);
    find_gateways(t);
    for (size_t i = 0; i < t->address_count; i++)
        if (ask_gateway(t, t->addresses[i], e))
            last = *e;
    t->trouble = last;
    if (t->shots[t->latest].gateways)
        return 0;
    *e = last;
    return (int)e->code;
}

static void compare(struct top *t)
{
    arena_reset(&t->figures_arena);
    top_compare(&t->shots[t->latest ^ 1], &t->shots[t->latest], &t->figures_arena, &t->figures);
    top_order(&t->figures, t->sort);
    if (t->history_count == TOP_HISTORY)
        memmove(t->history, t->history + 1, (--t->history_count) * sizeof(t->history[0]));
    t->history[t->history_count++] = t->figures.all.requests;
}

/* A look that is worth comparing: one that failed leaves the one before in place. */
static void tick(struct top *t)
{
    struct err e;

    if (look(t, &e))
        t->latest ^= 1;
    else
        compare(t);
}

/* --- Showing ---------------------------------------------------------------------------------- */

static struct top_view view_of(struct top *t)
{
    return (struct top_view){.a = &t->figures_arena,
                             .color = t->c->color,
                             .paused = t->paused,
                             .columns = t->c->tty ? (size_t)t->c->columns : 1000,
                             .scroll = t->scroll,
                             .sort = t->sort,
                             .interval_ns = t->interval_ns,
                             .wall_ns = time_wall_ns(),
                             .title = t->title,
                             .trouble = t->trouble.code ? str_of(t->trouble.msg) : S(""),
                             .status = t->status,
                             .history = t->history,
                             .history_count = t->history_count};
}

static void print(struct top *t)
{
    struct top_view v = view_of(t);
    struct json_out o;

    if (t->c->opt.json) {
        jo_begin(&o, &t->c->out);
        top_view_json(&v, &t->figures, &o);
        buf_add_char(&t->c->out, '\n');
    } else {
        top_view_write(&v, &t->figures, &t->c->out);
    }
    cli_flush(t->c);
}

static void draw(struct top *t)
{
    struct top_view v = view_of(t);

    v.live = true;
    screen_size(&v.columns, &v.lines);
    top_view_write(&v, &t->figures, &t->c->out);
    cli_flush(t->c);
}

/* --- Keys ------------------------------------------------------------------------------------- */

static void sort_by_letter(struct top *t, int key)
{
    for (int i = 0; i < TOP_SORT_COUNT; i++)
        if (key == top_sort_letter((enum top_sort)i))
            t->sort = (enum top_sort)i;
    top_order(&t->figures, t->sort);
}

/* False: end. */
static bool on_key(struct top *t, int key)
{
    switch (key) {
    case SCREEN_END:
    case 'q':
        return false;
    case ' ':
        t->paused = !t->paused;
        break;
    case '+':
        t->interval_ns = MIN(t->interval_ns * 2, INTERVAL_MAX_NS);
        break;
    case '-':
        t->interval_ns = MAX(t->interval_ns / 2, INTERVAL_MIN_NS);
        break;
    case 'j':
    case SCREEN_DOWN:
        t->scroll += t->scroll + 1 < t->figures.count;
        break;
    case 'k':
    case SCREEN_UP:
        t->scroll -= t->scroll > 0;
        break;
    default:
        sort_by_letter(t, key);
    }
    return true;
}

static NODISCARD int run_live(struct top *t, struct err *e)
{
    int64_t due_ns = time_mono_ns() + MIN(t->interval_ns, NS_PER_S / 2);
    bool go = true;

    TRY(screen_enter(e));
    while (go) {
        draw(t);
        go = on_key(t, screen_key(due_ns));
        if (!go || time_mono_ns() < due_ns)
            continue;
        if (!t->paused)
            tick(t);
        due_ns = time_mono_ns() + t->interval_ns;
    }
    screen_leave();
    if (screen_signal())
        t->c->exit_status = 128 + screen_signal();
    return 0;
}

static NODISCARD int run_plain(struct top *t)
{
    do {
        time_sleep(t->interval_ns);
        tick(t);
        print(t);
    } while (!t->o->once);
    return 0;
}

/* --- Beginning -------------------------------------------------------------------------------- */

static NODISCARD int read_options(struct top *t, struct err *e)
{
    const struct top_options *o = t->o;

    t->interval_ns = o->once ? NS_PER_S : 2 * NS_PER_S;
    if (o->interval && (!time_parse_duration(str_of(o->interval), &t->interval_ns) ||
                        t->interval_ns < INTERVAL_MIN_NS || t->interval_ns > INTERVAL_MAX_NS))
        return FAIL(e, INVALID_ARGUMENT, "--interval is '%s', expected a duration from 100ms to 1h",
                    o->interval);
    if (o->sort && !top_sort_of(str_of(o->sort), &t->sort))
        return FAIL(e, INVALID_ARGUMENT,
                    "--sort is '%s', expected requests, errors, p99, p50, waiting or name",
                    o->sort);
    for (size_t i = 0; i < o->gateways.n; i++)
        add_address(t, o->gateways.at[i]);
    return cli_key_line(t->c, o->key_file, &t->key_line, e);
}

static NODISCARD int run_top(struct top *t, struct err *e)
{
    struct err unused;
    str name;

    TRY(read_options(t, e));
    if (!t->o->gateways.n)
        (void)!cli_project_find(t->c, &unused);
    TRY(look(t, e));
    name = json_str_or(json_path(t->status, "project.name"), str_of(t->addresses[0]));
    t->title = arena_dup(&t->c->a, name);
    t->figures = (struct top_figures){.gateways = t->shots[t->latest].gateways};
    if (t->c->tty && isatty(STDIN_FILENO) && !t->o->once && !t->c->opt.json) {
        time_sleep(INTERVAL_MIN_NS); /* so that the first frame has something to say */
        tick(t);
        return run_live(t, e);
    }
    return run_plain(t);
}

static int run(struct cli *c, struct err *e)
{
    struct top t = {.c = c, .o = c->values};
    int rc;

    arena_init(&t.arenas[0], 0);
    arena_init(&t.arenas[1], 0);
    arena_init(&t.figures_arena, 0);
    rc = run_top(&t, e);
    screen_leave();
    arena_done(&t.arenas[0]);
    arena_done(&t.arenas[1]);
    arena_done(&t.figures_arena);
    return rc;
}

int command_top(int argc, char **argv)
{
    struct top_options o = {0};

    return cli_main(&spec, argc, argv, &o, run);
}
