/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/session.h"

#include "base/files.h"
#include "base/time.h"
#include "cli/http.h"

#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CALL_TIMEOUT_NS (60 * NS_PER_S)
#define KEY_BYTES_MAX ((size_t)16 << 10)
#define OUT_MAX ((size_t)512 << 20)

/* --- Beginning and end ------------------------------------------------------------------------ */

static void look_at_terminal(struct cli *c)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR"), *columns = getenv("COLUMNS");
    struct winsize size;
    int64_t n = 0;

    c->tty = isatty(STDOUT_FILENO);
    c->color = c->tty && !c->opt.no_color && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
    c->columns = 100;
    if (columns && str_to_i64(str_of(columns), &n) && n >= 40 && n <= 1000)
        c->columns = (int)n;
    else if (c->tty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40)
        c->columns = size.ws_col;
}

static void print_details(const struct json *details)
{
    const struct json *lists[] = {json_get(details, S("theirs")), json_get(details, S("yours"))};
    static const char *const titles[] = {"changed since the plan was made:",
                                         "what your files would change now:"};
    const struct json *problems = json_get(details, S("problems"));

    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        if (!lists[i] || !json_is_container(lists[i]))
            continue;
        fprintf(stderr, "  %s\n", titles[i]);
        JSON_EACH (change, lists[i]) {
            str path = json_str_or(json_get(change, S("path")), S("?"));
            str kind = json_str_or(json_get(change, S("kind")), S("change"));

            fprintf(stderr, "    %c " STR_F "\n",
                    str_eq(kind, S("add"))      ? '+'
                    : str_eq(kind, S("remove")) ? '-'
                                                : '~',
                    STR_A(path));
        }
    }
    if (problems && json_is_container(problems))
        JSON_EACH (problem, problems)
            fprintf(stderr, "  " STR_F "\n",
                    STR_A(json_str_or(json_get(problem, S("message")), S(""))));
}

int cli_main(const struct cli_spec *spec, int argc, char **argv, void *values, cli_run_fn run)
{
    struct cli c = {.spec = spec, .values = values};
    struct err e;
    int rc = cli_parse(spec, argc, argv, values, &c.opt, &e);

    if (rc) {
        fprintf(stderr, "weir %s: %s\n", spec->name, e.msg);
        return 2;
    }
    if (c.opt.help) {
        cli_help(spec, stdout);
        return 0;
    }
    arena_init(&c.a, 0);
    buf_init(&c.out, OUT_MAX);
    look_at_terminal(&c);
    rc = run(&c, &e);
    cli_flush(&c);
    if (rc) {
        fprintf(stderr, "weir %s: %s\n", spec->name, e.msg);
        if (c.details)
            print_details(c.details);
        c.exit_status = code_exit_status(e.code);
    }
    buf_done(&c.out);
    arena_done(&c.a);
    return c.exit_status;
}

/* --- Output ----------------------------------------------------------------------------------- */

void cli_flush(struct cli *c)
{
    fwrite(c->out.p, 1, c->out.n, stdout);
    fflush(stdout);
    buf_clear(&c->out);
}

void cli_json(struct cli *c, const struct json *node)
{
    json_write_pretty(&c->out, node);
    if (c->out.n && c->out.p[c->out.n - 1] != '\n')
        buf_add_char(&c->out, '\n');
}

void cli_note(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

bool cli_confirm(struct cli *c, const char *question)
{
    char line[64];

    cli_flush(c);
    if (!isatty(STDIN_FILENO))
        return false;
    fprintf(stderr, "%s [y/N] ", question);
    if (!fgets(line, sizeof(line), stdin))
        return false;
    return line[0] == 'y' || line[0] == 'Y';
}

/* --- The project ------------------------------------------------------------------------------ */

int cli_project_find(struct cli *c, struct err *e)
{
    char dir[4096];

    if (c->project_dir)
        return 0;
    if (c->opt.project) {
        if (path_real(c->opt.project, &c->a, &c->project_dir, e))
            return FAIL(e, INVALID_ARGUMENT, "there is no folder '%s'", c->opt.project);
        return 0;
    }
    if (!getcwd(dir, sizeof(dir)))
        return FAIL_ERRNO(e, "the present folder");
    for (;;) {
        char *slash;

        if (file_exists(path_join(&c->a, dir, "weir.yaml"))) {
            c->project_dir = arena_dupz(&c->a, str_of(dir));
            return 0;
        }
        slash = strrchr(dir, '/');
        if (!slash || slash == dir)
            return FAIL(e, NOT_FOUND,
                        "there is no weir.yaml here or in a folder above; begin with:"
                        " weir init");
        *slash = '\0';
    }
}

/* --- Asking control --------------------------------------------------------------------------- */

static enum code code_of_name(str name, int status)
{
    for (int i = 1; i < CODE_COUNT; i++)
        if (str_eqz(name, code_name((enum code)i)))
            return (enum code)i;
    return status == 404 ? CODE_NOT_FOUND : status >= 500 ? CODE_INTERNAL : CODE_INVALID_ARGUMENT;
}

static str actor_line(struct cli *c)
{
    struct passwd *pw = getpwuid(getuid());

    return pw ? arena_printf(&c->a, "X-Weir-Actor: user:%s\r\n", pw->pw_name) : S("");
}

int cli_call(struct cli *c, const char *target, const struct json *body, struct json **ret_answer,
             struct err *e)
{
    AUTO(buf_done) struct buf text = {0};
    struct cli_http_request req = {.target = target, .timeout_ns = CALL_TIMEOUT_NS};
    struct cli_http_response res;
    struct json *answer, *error;
    const char *socket;
    int rc;

    TRY(cli_project_find(c, e));
    socket = path_join(&c->a, c->project_dir, ".weir/run/control.sock");
    if (!file_exists(socket))
        return FAIL(e, UNAVAILABLE, "control does not run in %s; start it with: weir up",
                    c->project_dir);
    req.address = arena_printf(&c->a, "unix:%s", socket).p;
    req.extra = actor_line(c);
    req.body_bytes_max = (size_t)256 << 20;
    if (body) {
        buf_init(&text, OUT_MAX);
        json_write(&text, body);
        req.body = buf_str(&text);
    }
    rc = cli_http(&req, &c->a, &res, e);
    if (rc == CODE_UNAVAILABLE)
        return FAIL(e, UNAVAILABLE, "control does not answer in %s; start it with: weir up",
                    c->project_dir);
    TRY(rc);
    TRY(json_parse(res.body, &c->a, &answer, e));
    if (res.status >= 200 && res.status < 300) {
        *ret_answer = answer;
        return 0;
    }
    error = json_get(answer, S("error"));
    c->details = json_get(error, S("details"));
    return err_nonzero(err_fill(
        e, code_of_name(json_str_or(json_get(error, S("code")), S("")), res.status), ERR_AT, STR_F,
        STR_A(json_str_or(json_get(error, S("message")), S("control answered an error")))));
}

const char *cli_segment(struct cli *c, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = arena_alloc(&c->a, 3 * strlen(text) + 1);
    size_t n = 0;

    for (const char *p = text; *p; p++) {
        unsigned char b = (unsigned char)*p;

        if ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') ||
            b == '-' || b == '.' || b == '_') {
            out[n++] = (char)b;
        } else {
            out[n++] = '%';
            out[n++] = digits[b >> 4];
            out[n++] = digits[b & 15];
        }
    }
    out[n] = '\0';
    return out;
}

const char *cli_target(struct cli *c, const char *path, ...)
{
    str target = str_of(path);
    const char *name;
    char sep = '?';
    va_list args;

    va_start(args, path);
    while ((name = va_arg(args, const char *))) {
        const char *value = va_arg(args, const char *);

        if (!value || !value[0])
            continue;
        target =
            arena_printf(&c->a, STR_F "%c%s=%s", STR_A(target), sep, name, cli_segment(c, value));
        sep = '&';
    }
    va_end(args);
    return arena_dupz(&c->a, target);
}

/* --- Keys ------------------------------------------------------------------------------------- */

int cli_key_line(struct cli *c, const char *key_file, str *ret_line, struct err *e)
{
    str key;

    *ret_line = S("");
    if (!key_file)
        return 0;
    TRY(file_read_all(key_file, KEY_BYTES_MAX, &c->a, &key, e));
    key = str_trim(key);
    for (size_t i = 0; i < key.n; i++)
        if (key.p[i] <= ' ' || key.p[i] > '~')
            return FAIL(e, INVALID_ARGUMENT, "%s does not hold one key", key_file);
    *ret_line = arena_printf(&c->a, "Authorization: Bearer " STR_F "\r\n", STR_A(key));
    return 0;
}

/* --- Flows ------------------------------------------------------------------------------------ */

static void progress(struct cli *c, const struct json *flow, int64_t began_ns)
{
    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K" STR_F " " STR_F ": " STR_F " (" STR_F ")",
            STR_A(json_str_or(json_get(flow, S("type")), S("flow"))),
            STR_A(json_str_or(json_get(flow, S("step")), S(""))),
            STR_A(json_str_or(json_get(flow, S("state")), S(""))),
            STR_A(time_duration_text(&c->a, time_mono_ns() - began_ns)));
}

int cli_flow_wait(struct cli *c, str id, struct json **ret_flow, struct err *e)
{
    const char *target = arena_printf(&c->a, "/api/v1/flows/" STR_F, STR_A(id)).p;
    int64_t began = time_mono_ns();
    str state, error;

    for (;;) {
        struct json *flow;

        TRY(cli_call(c, target, NULL, &flow, e));
        if (json_get(flow, S("ended_ns")) && json_int_or(json_get(flow, S("ended_ns")), 0)) {
            *ret_flow = flow;
            break;
        }
        progress(c, flow, began);
        time_sleep(NS_PER_S / 5);
    }
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    state = json_str_or(json_get(*ret_flow, S("state")), S(""));
    error = json_str_or(json_get(*ret_flow, S("error")), S(""));
    if (str_eq(state, S("done")))
        return 0;
    return err_nonzero(
        err_fill(e, code_of_name(json_str_or(json_get(*ret_flow, S("error_code")), S("")), 500),
                 ERR_AT, STR_F ": " STR_F, STR_A(state), STR_A(error)));
}
