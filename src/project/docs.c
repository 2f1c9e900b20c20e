/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the table of fields says to people and to editors: docs/configuration.md, the text of
 * project_explain(), and a JSON Schema. The page is written by scripts/gen-config, never by hand.
 */
#include "project/priv.h"

/* A '|' ends a cell of a Markdown table. */
static void add_cell(struct buf *out, str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '|')
            buf_add_str(out, S("\\|"));
        else
            buf_add_char(out, text.p[i]);
}

static str default_text(const struct field *f)
{
    if (f->kind == KIND_SUB && !f->def)
        return S("its defaults");
    if (!f->def)
        return S("required");
    return f->def[0] ? str_of(f->def) : S("empty");
}

static void add_field_row(const struct field *f, struct buf *out, struct arena *a)
{
    bool code = f->def && f->def[0];

    buf_printf(out, "| `%s` | ", f->key);
    add_cell(out, value_expected(f, f->kind, a));
    if (f->sub)
        buf_printf(out, ": `%s`", project_sections[f->sub].path);
    buf_printf(out, code ? " | `" STR_F "` | " : " | " STR_F " | ", STR_A(default_text(f)));
    add_cell(out, str_of(f->help));
    if (f->when) {
        str rest = str_of(f->when), key = str_cut(&rest, '=');

        buf_printf(out, " Only with `" STR_F ": ", STR_A(key));
        for (bool first = true; rest.p; first = false) {
            str value = str_cut(&rest, '|'); /* on its own line: STR_A names its argument twice */

            buf_printf(out, "%s" STR_F, first ? "" : "` or `", STR_A(value));
        }
        buf_add_str(out, S("`."));
    }
    buf_printf(out, " | `%s`: %s%s | %s |\n", f->out, project_kinds[f->kind].normal,
               f->word ? ", or null" : "", project_effects[f->effect].word);
}

static void add_section(const struct section *s, struct buf *out, struct arena *a)
{
    bool root = s == &project_sections[SECTION_root];

    buf_printf(out, "\n### %s%s%s\n\n%s\n\n", root ? "" : "`", root ? "The file" : s->path,
               root ? "" : "`", s->help);
    buf_add_str(out, S("| Key | Value | Default | Meaning | Normalised | A change |\n"
                       "|---|---|---|---|---|---|\n"));
    for (size_t i = 0; i < s->field_count; i++)
        add_field_row(&s->fields[i], out, a);
}

static void add_presets(struct buf *out)
{
    buf_add_str(out, S("\n## Rollout presets\n\n"
                       "A name of this table may stand wherever the name of a rollout may.\n\n"
                       "| Preset | Steps: share and hold | Shadow | For |\n|---|---|---|---|\n"));
    for (size_t i = 0; i < project_preset_count; i++) {
        const struct preset *p = &project_presets[i];

        buf_printf(out, "| `%s` | %s%s100%% | %s | %s |\n", p->name, p->steps,
                   p->steps[0] ? ", " : "", p->shadow, p->help);
    }
}

void project_docs_write(struct buf *out)
{
    AUTO(arena_done) struct arena a = {0};

    arena_init(&a, 0);
    buf_printf(
        out,
        "# Configuration: %s\n\n"
        "<!-- Written by scripts/gen-config from src/project/fields.def; edit that. -->\n\n"
        "A project is a folder with the file `%s`. Durations take the units ns, us, ms, s, min, h, "
        "d and w (`1h30min`), sizes B, kB, MB, GB, TB and KiB, MiB, GiB, TiB, fractions are `10%%` "
        "or `0.1`. An unknown key is an error. Limits: %zu MiB for the file, %d entries in a "
        "section, %d in a list.\n\n"
        "The column *Normalised* is what other parts of Weir and the API see: every field is "
        "there, "
        "under the given name, and null where the file says the word for no value. The root also "
        "has `form`: `%s`.\n\n"
        "The last column says what it takes for a change to hold:\n\n",
        PROJECT_FILE, PROJECT_FILE, PROJECT_BYTES_MAX >> 20, PROJECT_ITEMS_MAX, PROJECT_LIST_MAX,
        PROJECT_FORM);
    for (size_t i = 0; i < EFFECT_COUNT; i++)
        buf_printf(out, "- *%s*: %s.\n", project_effects[i].word, project_effects[i].help);
    buf_add_str(out, S("\n## Sections\n"));
    add_section(&project_sections[SECTION_root], out, &a);
    for (size_t i = SECTION_none + 1; i < SECTION_COUNT; i++)
        if (i != SECTION_root)
            add_section(&project_sections[i], out, &a);
    add_presets(out);
}

/* --- One field ---------------------------------------------------------------------------- */

static void explain_field(const struct field *f, struct buf *out, struct arena *a)
{
    buf_printf(out, "%s\n  %s\n  value    " STR_F "\n  default  " STR_F "\n", f->key, f->help,
               STR_A(value_expected(f, f->kind, a)), STR_A(default_text(f)));
    if (f->when)
        buf_printf(out, "  only     with %s\n", f->when);
    buf_printf(out, "  change   %s: %s\n", project_effects[f->effect].word,
               project_effects[f->effect].help);
}

static void explain_section(const struct section *s, struct buf *out)
{
    buf_printf(out, "%s\n", s->help);
    for (size_t i = 0; i < s->field_count; i++)
        buf_printf(out, "  %-18s %s\n", s->fields[i].key, s->fields[i].help);
}

int project_explain(str path, struct buf *out, struct err *e)
{
    AUTO(arena_done) struct arena a = {0};
    const struct section *s = &project_sections[SECTION_root];
    const struct field *f = NULL;
    bool name_may_follow = false;
    str rest = path.n ? path : STR_NULL;

    arena_init(&a, 0);
    while (rest.p) {
        str key = str_cut(&rest, '.');
        const struct field *next = s ? section_field(s, key, false) : NULL;
        size_t n = 0;

        if (!next && name_may_follow) {
            name_may_follow = false;
            f = NULL;
            continue;
        }
        if (!next) {
            const str *keys = s ? section_keys(s, false, &a, &n) : NULL;
            str near = str_suggest(key, keys, n);

            return FAIL(e, NOT_FOUND, "'" STR_F "' is not a key%s%s%s" STR_F "%s",
                        STR_A(str_take(key, 64)), s && s->path[0] ? " of " : "", s ? s->path : "",
                        near.n ? ", did you mean '" : "", STR_A(near), near.n ? "'?" : "");
        }
        f = next;
        name_may_follow = f->kind == KIND_SUBS || f->kind == KIND_ITEMS;
        s = f->sub ? &project_sections[f->sub] : NULL;
    }
    if (f)
        explain_field(f, out, &a);
    if (s)
        explain_section(s, out);
    return 0;
}
