/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/options.h"

#define NAMES_MAX 64

static const struct cli_option common[] = {
    {"json", 0, CLI_FLAG, NULL, "machine-readable answer on stdout",
     offsetof(struct cli_parsed, json)},
    {"project", 'p', CLI_TEXT, "DIR", "the project folder (default: this one or one above)",
     offsetof(struct cli_parsed, project)},
    {"no-color", 0, CLI_FLAG, NULL, "plain text also on a terminal",
     offsetof(struct cli_parsed, no_color)},
    {"help", 'h', CLI_FLAG, NULL, "this text", offsetof(struct cli_parsed, help)},
};

struct parser {
    const struct cli_spec *spec;
    void *values;
    struct cli_parsed *found;
    int argc, at;
    char **argv;
};

static const struct cli_option *find_in(const struct cli_option *list, size_t n, str name,
                                        char letter)
{
    for (size_t i = 0; i < n; i++)
        if (letter ? list[i].letter == letter : str_eqz(name, list[i].name))
            return &list[i];
    return NULL;
}

/* The option and the struct that holds its value. */
static const struct cli_option *find(struct parser *p, str name, char letter, void **ret_values)
{
    const struct cli_option *o = find_in(p->spec->options, p->spec->option_count, name, letter);

    *ret_values = p->values;
    if (!o) {
        o = find_in(common, ARRAY_LEN(common), name, letter);
        *ret_values = p->found;
    }
    return o;
}

static NODISCARD int unknown(struct parser *p, str name, struct err *e)
{
    str names[NAMES_MAX], near;
    size_t n = 0;

    for (size_t i = 0; i < p->spec->option_count && n < NAMES_MAX; i++)
        names[n++] = str_of(p->spec->options[i].name);
    for (size_t i = 0; i < ARRAY_LEN(common) && n < NAMES_MAX; i++)
        names[n++] = str_of(common[i].name);
    near = str_suggest(name, names, n);
    if (near.n)
        return FAIL(e, INVALID_ARGUMENT, "unknown option --" STR_F ", did you mean --" STR_F "?",
                    STR_A(name), STR_A(near));
    return FAIL(e, INVALID_ARGUMENT, "unknown option --" STR_F "; see weir %s --help", STR_A(name),
                p->spec->name);
}

static NODISCARD int set_value(const struct cli_option *o, void *values, const char *text,
                               struct err *e)
{
    void *to = (char *)values + o->at;
    struct cli_list *list = to;
    int64_t i;

    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)to = true;
        return 0;
    case CLI_TEXT:
        *(const char **)to = text;
        return 0;
    case CLI_INT:
        if (!str_to_i64(str_of(text), &i) || i < 0)
            return FAIL(e, INVALID_ARGUMENT, "--%s is '%s', expected a whole number", o->name,
                        text);
        *(int64_t *)to = i;
        return 0;
    case CLI_REAL:
        if (!str_to_f64(str_of(text), to))
            return FAIL(e, INVALID_ARGUMENT, "--%s is '%s', expected a number", o->name, text);
        return 0;
    case CLI_LIST:
        if (list->n == CLI_LIST_MAX)
            return FAIL(e, INVALID_ARGUMENT, "--%s is given more than %d times", o->name,
                        CLI_LIST_MAX);
        list->at[list->n++] = text;
        return 0;
    }
    return 0;
}

static NODISCARD int take(struct parser *p, const struct cli_option *o, void *values,
                          const char *given, struct err *e)
{
    if (o->kind == CLI_FLAG) {
        if (given)
            return FAIL(e, INVALID_ARGUMENT, "--%s takes no value", o->name);
        return set_value(o, values, NULL, e);
    }
    if (!given) {
        if (p->at + 1 >= p->argc)
            return FAIL(e, INVALID_ARGUMENT, "--%s needs a value: --%s %s", o->name, o->name,
                        o->value);
        given = p->argv[++p->at];
    }
    return set_value(o, values, given, e);
}

static NODISCARD int take_long(struct parser *p, const char *text, struct err *e)
{
    str rest = str_of(text + 2), name = str_cut(&rest, '=');
    const struct cli_option *o;
    void *values;

    o = find(p, name, 0, &values);
    if (!o)
        return unknown(p, name, e);
    return take(p, o, values, rest.p, e);
}

static NODISCARD int take_letter(struct parser *p, const char *text, struct err *e)
{
    void *values;
    const struct cli_option *o = find(p, STR_NULL, text[1], &values);

    if (!o)
        return FAIL(e, INVALID_ARGUMENT, "unknown option %s; see weir %s --help", text,
                    p->spec->name);
    return take(p, o, values, text[2] ? text + 2 : NULL, e);
}

static NODISCARD int take_arg(struct parser *p, const char *text, struct err *e)
{
    if (p->found->arg_count == MIN(p->spec->args_max, CLI_ARGS_MAX))
        return FAIL(e, INVALID_ARGUMENT, "'%s' is one argument too many: weir %s %s", text,
                    p->spec->name, p->spec->usage);
    p->found->args[p->found->arg_count++] = text;
    return 0;
}

/* The usage of a command names its arguments in order, one word each. */
static NODISCARD int missing(const struct cli_spec *spec, size_t have, struct err *e)
{
    str rest = str_of(spec->usage), word = str_cut(&rest, ' ');

    while (have-- > 0)
        word = str_cut(&rest, ' ');
    return FAIL(e, INVALID_ARGUMENT, STR_F " is missing: weir %s %s", STR_A(word), spec->name,
                spec->usage);
}

int cli_parse(const struct cli_spec *spec, int argc, char **argv, void *values,
              struct cli_parsed *ret, struct err *e)
{
    struct parser p = {.spec = spec, .values = values, .found = ret, .argc = argc, .argv = argv};
    bool options = true;

    *ret = (struct cli_parsed){0};
    for (p.at = 1; p.at < argc; p.at++) {
        const char *text = argv[p.at];

        if (!options || text[0] != '-' || !text[1]) {
            TRY(take_arg(&p, text, e));
        } else if (strcmp(text, "--") == 0) {
            options = false;
        } else if (text[1] == '-') {
            TRY(take_long(&p, text, e));
        } else {
            TRY(take_letter(&p, text, e));
        }
    }
    if (!ret->help && ret->arg_count < spec->args_min)
        return missing(spec, ret->arg_count, e);
    return 0;
}

static void help_options(const struct cli_option *list, size_t n, FILE *to)
{
    for (size_t i = 0; i < n; i++) {
        char left[64];

        snprintf(left, sizeof(left), "--%s%s%s%s", list[i].name, list[i].value ? " " : "",
                 list[i].value ? list[i].value : "", "");
        if (list[i].letter)
            fprintf(to, "  -%c, %-24s %s\n", list[i].letter, left, list[i].help);
        else
            fprintf(to, "      %-24s %s\n", left, list[i].help);
    }
}

void cli_help(const struct cli_spec *spec, FILE *to)
{
    fprintf(to, "weir %s: %s\n\n%s\nusage: weir %s %s%s\n\n", spec->name, spec->summary,
            spec->examples, spec->name, spec->usage, spec->usage[0] ? " [OPTIONS]" : "[OPTIONS]");
    help_options(spec->options, spec->option_count, to);
    help_options(common, ARRAY_LEN(common), to);
    if (spec->notes)
        fprintf(to, "\n%s", spec->notes);
}
