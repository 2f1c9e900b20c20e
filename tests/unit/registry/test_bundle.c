/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bundles and cards, with a model registered for real: what is written is what another registry
 * takes in, and nothing that was touched on the way gets in. This program is its own probe.
 */
#include "check.h"

#include "base/files.h"
#include "base/hash.h"
#include "base/mem.h"
#include "registry/bundle.h"
#include "registry/card.h"
#include "registry/probe.h"
#include "registry/registry.h"

#include <unistd.h>

#define XGB_MODEL "tests/fuzz/corpus/xgb_onnx/binary"
#define BLOCK 512

static char folder[] = "/tmp/weir-bundle-XXXXXX";
static char self[4096];

static const char project_text[] =
    "{\"datasets\":{\"d\":{\"path\":\"data.csv\",\"format\":\"auto\",\"label\":\"y\"}},"
    "\"models\":{\"m\":{\"task\":\"classification\",\"dataset\":\"d\",\"label\":null,"
    "\"classes\":[\"0\",\"1\"],\"positive\":\"1\",\"threshold\":0.5,\"features\":null,"
    "\"platform\":\"onnxruntime_onnx\",\"owner\":\"risk|team\",\"tags\":[\"cards\"],\"intended_"
    "use\":\"to tell a from b\"},"
    "\"listed\":{\"task\":\"classification\",\"features\":[{\"name\":\"a\"},{\"name\":\"c\"}]}},"
    "\"endpoints\":{\"e\":{\"model\":\"m\",\"timeout_ns\":1000000000}},"
    "\"monitors\":{\"w\":{\"endpoint\":\"e\",\"tolerance\":0.1}}}";

struct place { /* a registry */
    struct arena a;
    struct meta_store *store;
    struct meta *m;
    struct blobs *blobs;
    struct registry_env env;
    struct json *project;
};

static void place_done(struct place *p)
{
    meta_close(p->m);
    meta_store_close(p->store);
    blobs_close(p->blobs);
    arena_done(&p->a);
}

static bool place_init(struct place *p, const char *name)
{
    struct json *applied;
    struct err e;
    char *dir;

    *p = (struct place){0};
    arena_init(&p->a, 0);
    dir = path_join(&p->a, folder, name);
    if (!CHECK_OK(meta_store_open(dir, NULL, &p->store, &e), &e) ||
        !CHECK_OK(meta_open(p->store, &p->m, &e), &e) ||
        !CHECK_OK(blobs_open(path_join(&p->a, dir, "blobs"), &p->blobs, &e), &e) ||
        !CHECK_OK(json_parse(str_of(project_text), &p->a, &p->project, &e), &e))
        return false;
    applied = json_new_object(&p->a);
    json_set(applied, S("tree"), json_copy(&p->a, p->project));
    p->env = (struct registry_env){.store = p->store,
                                   .blobs = p->blobs,
                                   .project_dir = folder,
                                   .state_dir = dir,
                                   .self = self};
    return CHECK_OK(meta_kv_put(p->m, S("project"), S("applied"), applied, &e), &e);
}

static bool data_make(void)
{
    AUTO(arena_done) struct arena a;
    AUTO(buf_done) struct buf text = {0};
    struct err e;

    arena_init(&a, 0);
    buf_init(&text, 1 << 20);
    buf_add_str(&text, S("a,b,y\n"));
    for (int i = 0; i < 500; i++)
        buf_printf(&text, "%.3f,%d,%d\n", i / 500.0, i % 9, i < 250);
    return CHECK_OK(file_replace(path_join(&a, folder, "data.csv"), buf_str(&text), &e), &e);
}

static int add(struct place *p, const char *model, const char *path, bool with_project,
               struct registry_result *ret, struct err *e)
{
    const struct registry_request req = {.model = str_of(model),
                                         .path = path,
                                         .project = with_project ? p->project : NULL,
                                         .actor = S("user:test"),
                                         .reason = S("test"),
                                         .promote = true};

    return registry_register(&p->env, p->m, &req, ret, e);
}

/* A version as the API answers it: the metadata under "meta". */
static struct json *answered(struct place *p, const char *model, int64_t version)
{
    struct json *shown, *to = json_new_object(&p->a);
    struct err e;

    if (!CHECK_OK(registry_show(p->m, str_of(model), version, &p->a, &shown, &e), &e))
        return to;
    json_set(to, S("model"), json_copy(&p->a, json_get(shown, S("model"))));
    json_set(to, S("version"), json_copy(&p->a, json_get(shown, S("version"))));
    json_set(to, S("artifact"), json_copy(&p->a, json_get(shown, S("artifact"))));
    json_set(to, S("created_ns"), json_copy(&p->a, json_get(shown, S("created_ns"))));
    json_set(to, S("meta"), shown);
    return to;
}

/* Registers a model with a profile and writes its bundle. */
static const char *export_one(struct place *p, const char *name, char ret_id[SHA256_HEX_SIZE])
{
    const char *path = path_join(&p->a, p->env.state_dir, name);
    struct bundle_input in = {.blobs = p->blobs};
    struct registry_result r;
    struct json *card;
    struct err e;

    if (!CHECK_OK(add(p, "m", XGB_MODEL, true, &r, &e), &e) ||
        !CHECK_OK(registry_card(p->m, p->blobs, S("m"), 1, &p->a, &card, &e), &e))
        return path;
    in.card = card;
    in.version = answered(p, "m", 1);
    CHECK_OK(bundle_write(&in, path, ret_id, &e), &e);
    return path;
}

/* --- The way there ---------------------------------------------------------------------------- */

static void test_round_trip(void)
{
    AUTO(place_done) struct place here;
    AUTO(place_done) struct place there;
    char id[SHA256_HEX_SIZE] = "", again[SHA256_HEX_SIZE] = "";
    struct json *old, *new;
    struct registry_result r;
    const char *path;
    struct err e;

    NEED(place_init(&here, "here") && place_init(&there, "there"));
    path = export_one(&here, "m.bundle", id);
    NEED_OK(add(&there, "m", path, true, &r, &e), &e);
    CHECK_INT(r.version, 1);
    CHECK(r.profile[0] && strcmp(r.source, r.artifact) != 0);
    NEED_OK(registry_show(here.m, S("m"), 1, &here.a, &old, &e), &e);
    NEED_OK(registry_show(there.m, S("m"), 1, &there.a, &new, &e), &e);
    for (const char *const *key =
             (const char *const[]){"artifact", "source", "profile", "signature", "golden", "rows",
                                   "algorithm", "framework", NULL};
         *key; key++)
        CHECK(json_equal(json_get(old, str_of(*key)), json_get(new, str_of(*key))));
    CHECK_STR(json_str_or(json_path(new, "imported.bundle"), S("")), str_of(id));
    CHECK_INT(json_int_or(json_path(new, "imported.version"), 0), 1);
    /* Written again, from the same version: the same bytes. */
    NEED_OK(bundle_write(
                &(struct bundle_input){.blobs = here.blobs, .version = answered(&here, "m", 1)},
                path_join(&here.a, folder, "x"), id, &e),
            &e);
    NEED_OK(bundle_write(
                &(struct bundle_input){.blobs = here.blobs, .version = answered(&here, "m", 1)},
                path_join(&here.a, folder, "y"), again, &e),
            &e);
    CHECK_STR(str_of(id), str_of(again));
    /* Under another name, with a project that knows nothing of it. */
    NEED_OK(add(&there, "other", path, true, &r, &e), &e);
    CHECK_FAILS(add(&there, "listed", path, true, &r, &e), FAILED_PRECONDITION, &e,
                "feature 2 of the project is 'c'");
}

/* What the tree engine serves is the file as it was given: there is no other source. */
static void test_trees_go_along(void)
{
    AUTO(place_done) struct place here;
    AUTO(place_done) struct place there;
    struct bundle_input in;
    char id[SHA256_HEX_SIZE] = "";
    struct registry_result r;
    struct json *old, *new;
    const char *path;
    struct err e;

    NEED(place_init(&here, "trees-here") && place_init(&there, "trees-there"));
    path = path_join(&here.a, here.env.state_dir, "trees.bundle");
    NEED_OK(add(&here, "other", XGB_MODEL, true, &r, &e), &e);
    CHECK_STR(str_of(r.source), str_of(r.artifact));
    in = (struct bundle_input){.blobs = here.blobs, .version = answered(&here, "other", 1)};
    NEED_OK(bundle_write(&in, path, id, &e), &e);
    NEED_OK(add(&there, "other", path, true, &r, &e), &e);
    NEED_OK(registry_show(here.m, S("other"), 1, &here.a, &old, &e), &e);
    NEED_OK(registry_show(there.m, S("other"), 1, &there.a, &new, &e), &e);
    CHECK_STR(json_str_or(json_get(new, S("platform")), S("")), S("weir_trees"));
    CHECK_STR(json_str_or(json_get(new, S("format")), S("")), S("xgboost"));
    CHECK(json_equal(json_get(old, S("signature")), json_get(new, S("signature"))));
    CHECK(json_equal(json_get(old, S("golden")), json_get(new, S("golden"))));
}

static void test_tar_reads_it(void)
{
    AUTO(place_done) struct place p;
    char id[SHA256_HEX_SIZE], command[512];
    const char *path;

    NEED(place_init(&p, "tar"));
    path = export_one(&p, "t.bundle", id);
    snprintf(command, sizeof(command),
             "test \"$(tar tf %s | tr '\\n' ' ')\" = "
             "'manifest.json model.onnx source profile.json golden.json card.md '",
             path);
    CHECK_INT(system(command), 0);
    snprintf(command, sizeof(command), "tar xOf %s manifest.json | sha256sum | grep -q %s", path,
             id);
    CHECK_INT(system(command), 0);
}

/* --- Touched on the way ----------------------------------------------------------------------- */

struct changed {
    struct place p;
    struct arena a;
    str whole;
    struct bundle b; /* its ranges */
};

static void changed_done(struct changed *c)
{
    bundle_done(&c->b);
    place_done(&c->p);
    arena_done(&c->a);
}

static bool changed_init(struct changed *c, const char *name)
{
    char id[SHA256_HEX_SIZE];
    const char *path;
    struct err e;

    *c = (struct changed){.b.fd = -1};
    arena_init(&c->a, 0);
    if (!place_init(&c->p, name))
        return false;
    path = export_one(&c->p, "c.bundle", id);
    return CHECK_OK(file_read_all(path, 1 << 24, &c->a, &c->whole, &e), &e) &&
           CHECK_OK(bundle_open(path, &c->a, &c->b, &e), &e);
}

/* What opening these bytes says. */
static void refused(struct changed *c, str bytes, const char *why)
{
    AUTO(bundle_done) struct bundle b = {.fd = -1};
    const char *path = path_join(&c->a, c->p.env.state_dir, "changed");
    struct err e;

    NEED_OK(file_replace(path, bytes, &e), &e);
    CHECK_FAILS(bundle_open(path, &c->a, &b, &e), INVALID_ARGUMENT, &e, why);
}

static void test_a_changed_part_is_named(void)
{
    AUTO(changed_done) struct changed c;
    struct registry_result r;
    int64_t n;
    struct err e;

    NEED(changed_init(&c, "changed"));
    for (int part = BUNDLE_MODEL; part < BUNDLE_PART_COUNT; part++) {
        char *copy = arena_dupz(&c.a, c.whole);

        CHECK(c.b.parts[part].there);
        copy[c.b.parts[part].at + c.b.parts[part].bytes / 2] ^= 1;
        refused(&c, (str){copy, c.whole.n}, bundle_part_name((enum bundle_part)part));
    }
    /* And the registry, which says so in the journal, keeps nothing. */
    CHECK_FAILS(add(&c.p, "fresh", path_join(&c.a, c.p.env.state_dir, "changed"), false, &r, &e),
                INVALID_ARGUMENT, &e, "card.md");
    CHECK_OK(meta_first_int(c.p.m, "SELECT count(*) FROM journal WHERE type = 'model.refused'",
                            M_NO_ARGS, 0, &n, &e),
             &e);
    CHECK_INT(n, 1);
}

static void head_sum(char *head)
{
    unsigned sum = 0;
    char text[16];

    memset(head + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++)
        sum += (unsigned char)head[i];
    snprintf(text, sizeof(text), "%06o", sum);
    memcpy(head + 148, text, 7);
}

static void test_foreign_archives(void)
{
    AUTO(changed_done) struct changed c;
    char *copy, *twice;
    size_t at;

    NEED(changed_init(&c, "foreign"));
    refused(&c, str_take(c.whole, c.whole.n - 2 * BLOCK), "too early");
    refused(&c, str_take(c.whole, 700), "manifest.json");
    refused(&c, S(""), "too early");
    copy = arena_dupz(&c.a, c.whole);
    copy[0] = 'M'; /* the header's sum is wrong now */
    refused(&c, (str){copy, c.whole.n}, "damaged at byte 0");
    head_sum(copy);
    refused(&c, (str){copy, c.whole.n}, "no bundle has a part 'Manifest.json'");
    at = c.b.parts[BUNDLE_MODEL].at - BLOCK;
    copy = arena_dupz(&c.a, c.whole);
    memcpy(copy + at, "../../x", 8);
    head_sum(copy + at);
    refused(&c, (str){copy, c.whole.n}, "no bundle has a part '../../x'");
    copy = arena_dupz(&c.a, c.whole);
    copy[at + 156] = '2'; /* a symbolic link */
    head_sum(copy + at);
    refused(&c, (str){copy, c.whole.n}, "plain files only");
    copy = arena_dupz(&c.a, c.whole);
    memcpy(copy + at + 124, "77777777777", 11);
    head_sum(copy + at);
    refused(&c, (str){copy, c.whole.n}, "size of part model.onnx");
    copy = arena_dupz(&c.a, c.whole);
    copy[c.whole.n - 1] = 'x';
    refused(&c, (str){copy, c.whole.n}, "follows the last part");
    /* The whole thing without its end, and then once more. */
    at = c.whole.n - 2 * BLOCK;
    twice = arena_alloc(&c.a, 2 * c.whole.n);
    memcpy(twice, c.whole.p, at);
    memcpy(twice + at, c.whole.p, c.whole.n);
    refused(&c, (str){twice, at + c.whole.n}, "manifest.json is there twice");
}

/* A manifest that was changed together with its hashes is a consistent bundle: what stops it then
 * is the model itself. */
static void test_the_model_must_agree(void)
{
    AUTO(place_done) struct place p;
    struct json *version, *golden;
    struct bundle_input in = {0};
    struct registry_result r;
    char id[SHA256_HEX_SIZE];
    const char *path;
    struct err e;

    NEED(place_init(&p, "agree"));
    export_one(&p, "ok.bundle", id);
    path = path_join(&p.a, p.env.state_dir, "other.bundle");
    version = answered(&p, "m", 1);
    in = (struct bundle_input){.blobs = p.blobs, .version = version};
    golden = json_path(version, "meta.golden.output");
    NEED(golden);
    json_set_real(&p.a, golden, S("probabilities_1"), 0.123);
    NEED_OK(bundle_write(&in, path, id, &e), &e);
    CHECK_FAILS(add(&p, "m", path, true, &r, &e), INVALID_ARGUMENT, &e, "golden input");
    version = answered(&p, "m", 1);
    in.version = version;
    json_set_str(&p.a, json_at(json_path(version, "meta.signature.inputs"), 0), S("datatype"),
                 S("INT64"));
    NEED_OK(bundle_write(&in, path, id, &e), &e);
    CHECK_FAILS(add(&p, "m", path, true, &r, &e), INVALID_ARGUMENT, &e, "");
}

/* --- Cards ------------------------------------------------------------------------------------ */

static bool misses(const struct json *card, const char *path)
{
    JSON_EACH (item, json_get(card, S("missing")))
        if (str_eqz(json_str_or(item, S("")), path))
            return true;
    return false;
}

static void test_card(void)
{
    AUTO(place_done) struct place p;
    AUTO(buf_done) struct buf text = {0};
    struct json *card, *report, *feature;
    struct registry_result r;
    struct err e;

    NEED(place_init(&p, "card"));
    NEED_OK(add(&p, "m", XGB_MODEL, true, &r, &e), &e);
    NEED_OK(registry_card(p.m, p.blobs, S("m"), 0, &p.a, &card, &e), &e);
    CHECK_STR(json_str_or(json_path(card, "overview.stage"), S("")), S("production"));
    CHECK_STR(json_str_or(json_path(card, "overview.target"), S("")), S("y"));
    CHECK_INT(json_int_or(json_path(card, "data.reference_rows"), 0), 500);
    feature = json_at(json_path(card, "data.features"), 0);
    CHECK_STR(json_str_or(json_get(feature, S("name")), S("")), S("a"));
    CHECK_NEAR(json_real_or(json_get(feature, S("seen_to")), 0), 499 / 500.0, 1e-6);
    CHECK_STR(json_str_or(json_get(json_at(json_path(card, "maintenance.monitors"), 0), S("name")),
                          S("")),
              S("w"));
    CHECK(misses(card, "performance.evaluation") && misses(card, "maintenance.rollback_target"));
    CHECK(!misses(card, "overview.owner"));
    buf_init(&text, 1 << 20);
    registry_card_markdown(card, &p.a, &text);
    CHECK(str_find(buf_str(&text), S("# Model card: m version 1\n")) == 0);
    CHECK(str_find(buf_str(&text), S("risk\\|team")) > 0);
    CHECK(str_find(buf_str(&text), S("| 1s |")) > 0);

    /* It follows what happens: an evaluation, a new champion. */
    NEED_OK(json_parse(S("{\"metrics\":{\"f1\":0.9,\"brier\":0.1},\"verdict\":\"DEPLOY\","
                         "\"slices\":[{\"column\":\"b\",\"value\":\"1\",\"n\":7}]}"),
                       &p.a, &report, &e),
            &e);
    NEED_OK(registry_version_annotate(p.m, S("m"), 1, S("evaluation"), report, &e), &e);
    NEED_OK(add(&p, "m", XGB_MODEL, true, &r, &e), &e);
    NEED_OK(registry_card(p.m, NULL, S("m"), 1, &p.a, &card, &e), &e);
    CHECK_NEAR(json_real_or(json_path(card, "performance.calibration.brier"), 0), 0.1, 0);
    CHECK_INT(json_int_or(json_path(card, "maintenance.rollback_target"), 0), 2);
    CHECK(!json_get(json_at(json_path(card, "data.features"), 0), S("seen_to")));
    NEED_OK(registry_card(p.m, NULL, S("m"), 2, &p.a, &card, &e), &e);
    CHECK_INT(json_int_or(json_path(card, "maintenance.rollback_target"), 0), 1);
    CHECK_FAILS(registry_card(p.m, NULL, S("m"), 9, &p.a, &card, &e), NOT_FOUND, &e, "version 9");
}

static const struct check_test tests[] = {
    T(test_round_trip),
    T(test_trees_go_along),
    T(test_tar_reads_it),
    T(test_a_changed_part_is_named),
    T(test_foreign_archives),
    T(test_the_model_must_agree),
    T(test_card),
};

int main(int argc, char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (argc > 1 && strcmp(argv[1], "probe") == 0)
        return probe_main(argc - 1, argv + 1);
    if (n < 0 || !check_mkdtemp(folder) || !data_make())
        return EXIT_FAILURE;
    return check_run(tests, ARRAY_LEN(tests), argc > 1 ? argv[1] : NULL);
}
